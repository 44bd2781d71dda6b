"""The page: draw everything, then wire everything; and how it is launched.

Knows no engine and reads no environment. Called by app.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from model_registry.registry import Registry
from model_registry.spec import ModelSpec
from playground.admission.gate import Gate
from playground.limits import MAX_PANELS
from playground.placement.planner import needed_bytes
from playground.settings import Settings
from playground.ui import view
from playground.ui.adapters import AdapterHandlers
from playground.ui.api.endpoints import wire_api
from playground.ui.devices import DeviceHandlers, draw_devices
from playground.ui.door.layers import layers
from playground.ui.elsewhere.events import wire_places
from playground.ui.elsewhere.handlers import PlaceHandlers
from playground.ui.event_kinds import MOST_QUEUED, most_events
from playground.ui.events import (
    Controls,
    wire,
    wire_about,
    wire_adapters,
    wire_devices,
    wire_side_by_side,
    wire_templates,
)
from playground.ui.examples import read_examples
from playground.ui.handlers import Handlers
from playground.ui.lens.about import AboutHandlers
from playground.ui.lens.handlers import LensHandlers
from playground.ui.lens.probabilities import ProbabilityHandlers
from playground.ui.lens.prompting import draw_prompting
from playground.ui.lens.side_by_side import SideBySideHandlers, draw_side_by_side
from playground.ui.lens.template_editor import TemplateHandlers
from playground.ui.panel import Choices, Panel, draw_panel, menu_choices
from playground.ui.prompt_bar import draw_prompt_bar
from playground.ui.sampling import draw_sampling
from playground.ui.visitor import Entrance

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool

HERE = Path(__file__).parent
TITLE = "Krutrim and KULLM3, side by side"
PURPOSE = "Type a prompt once; see what each model was given and how it answers, live."
FONTS = [
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Noto Sans",
    "Noto Sans KR",
    "Apple SD Gothic Neo",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Noto Sans Tamil",
    "Noto Sans Bengali",
    "Nirmala UI",
    "sans-serif",
]
SCRIPTS = (HERE / "page.js", HERE / "lens" / "probabilities.js")

CLEAN_UP_S = (600, 3600)
"""How often temporary files are looked through, and how old they get, in seconds."""

SESSIONS = 10_000
"""Pages whose conversations are kept, where no limit says otherwise; of more, those that were used last."""


def build(registry: Registry, pool: Pool, models: Sequence[str], settings: Settings) -> gr.Blocks:
    """The page, unserved.

    models: the ids or aliases that the panels start with, one panel each.
    settings: what visitors may do, and how much of it.
    """
    specs = [registry.get(model) for model in models]
    choices = menu_choices(registry, pool)
    entrance = Entrance(Gate(settings.limits), settings.proxies)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=CLEAN_UP_S) as page:
        gr.HTML(_header(), elem_id="header")
        if any(spec.is_stand_in for spec in specs):
            gr.HTML(stand_in_banner(registry, specs), elem_id="banner")
        with gr.Row(elem_id="drawers"):
            sampling, prompting = draw_sampling(settings.limits.answer_tokens), draw_prompting()
            side_by_side, devices = draw_side_by_side(), draw_devices()
        shown = gr.State([index < len(specs) for index in range(MAX_PANELS)])
        with gr.Row(elem_id="panels"):
            panels = [_draw_slot(index, specs, pool, choices) for index in range(MAX_PANELS)]
        bar = draw_prompt_bar(read_examples())
        handlers = Handlers(registry, pool, entrance)
        templates = TemplateHandlers(pool, settings.edit_templates, settings.limits)
        lens = LensHandlers(registry, pool, templates, settings.limits)
        odds, adapters = ProbabilityHandlers(pool, entrance), AdapterHandlers(registry, pool)
        controls = Controls(sampling, prompting)
        wire(handlers, lens, odds, panels, bar, controls, shown, page)
        wire_templates(lens, panels)
        wire_side_by_side(SideBySideHandlers(registry, pool, settings.limits), side_by_side, panels, bar, shown)
        wire_adapters(adapters, panels, bar, shown)
        wire_devices(devices, DeviceHandlers(registry, pool, may_act=not settings.for_strangers), handlers, panels)
        wire_places(PlaceHandlers(pool, entrance), adapters, handlers, lens, panels, bar, controls)
        wire_about(AboutHandlers(registry), panels)
        wire_api(registry, pool, settings.edit_templates, entrance)
    page.space_id = None  # else Gradio fetches fonts and a header from elsewhere where the Hub's own is not around it
    return page.queue(max_size=MOST_QUEUED)


def launch_arguments(settings: Settings) -> dict[str, Any]:
    """Everything stays on this machine: no analytics, no run history in the browser, no remote image, no font.

    Whoever waits is to wait in our line, which tells the place, so Gradio's own has room for everybody.
    """
    return {
        "server_name": settings.host,
        "server_port": settings.port,
        "inbrowser": settings.open_browser,
        "theme": gr.themes.Default(
            primary_hue="indigo", neutral_hue="slate", font=FONTS, font_mono=["ui-monospace", "Consolas", "monospace"]
        ),
        "css_paths": [
            HERE / "style.css",
            HERE / "lens" / "lens.css",
            HERE / "lens" / "probabilities.css",
            HERE / "elsewhere" / "places.css",
        ],
        "head": "".join(f"<script>{path.read_text('utf-8')}</script>" for path in SCRIPTS),
        "footer_links": ["api"],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "share": False,
        "show_error": settings.typed_folders,  # of errors that nobody foresaw; where strangers come the log has them
        "auth": list(settings.users) or None,
        "app_kwargs": {"middleware": layers(settings)},
        "max_threads": most_events(settings.limits),
        "state_session_capacity": settings.limits.sessions or SESSIONS,
        "max_file_size": "1mb",
        "quiet": True,
        "prevent_thread_lock": True,
    }


def stand_in_banner(registry: Registry, specs: Sequence[ModelSpec]) -> str:
    """That these are stand-ins, and the command that runs the models themselves."""
    real = list({spec.stand_in_for: registry.get(spec.stand_in_for) for spec in specs if spec.stand_in_for}.values())
    needed = math.ceil(sum(needed_bytes(spec) for spec in real) / 1e9)
    names = " and ".join(spec.name for spec in real)
    command = f"python app.py --models {','.join(spec.id for spec in real)}"
    return (
        f"<p><strong>These are tiny stand-ins</strong>, a few million parameters each, with the architectures and chat "
        f"templates of {view.verbatim(names)}: they show how the playground works, not what the models know. "
        f"For the models themselves, on a machine with {needed} GB of GPU memory, or less with weights in 8 "
        f"or 4 bits: <code>{view.verbatim(command)}</code></p>"
    )


def _header() -> str:
    return f"<h1>{view.verbatim(TITLE)}</h1><p>{view.verbatim(PURPOSE)}</p>"


def _draw_slot(index: int, specs: Sequence[ModelSpec], pool: Pool, choices: Choices) -> Panel:
    spec = specs[index % len(specs)]
    return draw_panel(index, spec, pool, choices, shown=index < len(specs))
