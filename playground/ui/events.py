"""Every event of the app, wired in one place: which component triggers which handler, with what, to where.

Read it top to bottom, and `lens.events`, as the list of what the page can do. Knows the components and the handlers,
decides nothing.
Called by `build` once everything is drawn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from playground.ui.adapters import AdapterHandlers
from playground.ui.comparing import Comparing, candidates
from playground.ui.devices import DeviceHandlers, DevicesView
from playground.ui.event_kinds import ANSWERS, HERE, NOW, QUIET, STREAMS_PER_PANEL
from playground.ui.handlers import Handlers
from playground.ui.lens.about import AboutHandlers
from playground.ui.lens.events import wire_probabilities
from playground.ui.lens.handlers import LensHandlers
from playground.ui.lens.probabilities import ProbabilityHandlers
from playground.ui.lens.prompting import PromptingControls
from playground.ui.lens.side_by_side import FOLLOW as FOLLOW_SIDE_BY_SIDE
from playground.ui.lens.side_by_side import SideBySide, SideBySideHandlers
from playground.ui.panel import Panel
from playground.ui.prompt_bar import PromptBar
from playground.ui.sampling import SamplingControls
from playground.ui.streaming import Streaming

FOLLOW = "(prompt, typed) => /[<[{|]/.test(prompt) || document.querySelector('.preview, .caution') ? prompt : typed"
"""What `typed` follows: `SUSPECTS` of the lens' handlers, and whatever is typed while a lens is open."""


CATCH_UP = "prompt => prompt"
"""What was typed while a view was being opened."""


@dataclass(frozen=True)
class Controls:
    """The drawers whose values go into every request."""

    sampling: SamplingControls
    prompting: PromptingControls

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The components of `Wishes`, in their order."""
        return [*self.sampling.inputs, *self.prompting.inputs]

    def typing(self, bar: PromptBar) -> list[gr.components.Component]:
        """The components of `Typing`, in their order."""
        return [bar.prompt, self.sampling.max_new_tokens, *self.prompting.inputs]


def wire(
    handlers: Handlers,
    lens: LensHandlers,
    odds: ProbabilityHandlers,
    panels: list[Panel],
    bar: PromptBar,
    controls: Controls,
    shown: gr.State,
    page: gr.Blocks,
) -> None:
    wire_asking(handlers, lens, odds, panels, bar, controls, shown)
    wire_stopping(handlers, lens, panels, bar, controls)
    wire_models(handlers, panels, page)
    wire_lenses(lens, panels, bar, controls, shown)
    wire_probabilities(odds, panels, bar)
    wire_layout(handlers, panels, bar, shown)
    wire_browser(bar, controls.sampling, page)


def wire_asking(
    handlers: Handlers,
    lens: LensHandlers,
    odds: ProbabilityHandlers,
    panels: list[Panel],
    bar: PromptBar,
    controls: Controls,
    shown: gr.State,
) -> None:
    """Send asks every panel, Regenerate one; either way each panel streams in an event of its own.

    The siblings hang on one first event by `.success`: listeners of one trigger would run one after the other.
    """
    asked = gr.on(
        [bar.prompt.submit, bar.send.click],
        handlers.start_turn,
        [bar.prompt, shown, *controls.inputs, *(part for panel in panels for part in panel.question)],
        [bar.prompt, controls.sampling.seed, bar.hint, *(part for panel in panels for part in panel.answer)],
        **NOW,
    )
    streaming = Streaming(handlers.pool, handlers.entrance)
    for panel in panels:
        again = panel.regenerate.click(
            handlers.regenerate, [*controls.inputs, *panel.question], [bar.hint, *panel.answer], **NOW
        )
        for trigger in (asked, again):
            streamed = trigger.success(
                streaming.panel,
                [panel.state, panel.control, shown],
                [panel.state, panel.chat],
                concurrency_id=f"panel-{panel.index}",
                **ANSWERS,
                **QUIET,
            )
            streamed.then(lens.looks, [*controls.typing(bar), *panel.glance], panel.lens.view, **NOW)
            for turned in (trigger, streamed):
                turned.then(odds.follow, panel.shown_odds, [panel.odds.view, panel.odds.button], **NOW)
            streamed.then(handlers.refresh_menus, *menus(panels), **NOW)


def wire_stopping(
    handlers: Handlers, lens: LensHandlers, panels: list[Panel], bar: PromptBar, controls: Controls
) -> None:
    states_and_chats = [part for panel in panels for part in (panel.state, panel.chat)]
    states_and_controls = [part for panel in panels for part in (panel.state, panel.control)]
    bar.stop_all.click(handlers.stop, states_and_controls, states_and_chats, **NOW)
    bar.clear_all.click(
        handlers.clear,
        [panel.control for panel in panels],
        [part for panel in panels for part in panel.answer],
        **NOW,
    ).then(lens.looks, [*controls.typing(bar), *glances(panels)], [panel.lens.view for panel in panels], **NOW)
    for panel in panels:
        panel.stop.click(handlers.stop, [panel.state, panel.control], [panel.state, panel.chat], **NOW)
        panel.clear.click(handlers.clear, [panel.control], panel.answer, **NOW).then(
            lens.looks, [*controls.typing(bar), *panel.glance], panel.lens.view, **NOW
        )


def wire_models(handlers: Handlers, panels: list[Panel], page: gr.Blocks) -> None:
    """Choosing a model; the menus tell the models' state anew at load, when one is opened, after each answer."""
    triggers = [page.load, *(panel.model.focus for panel in panels)]
    gr.on(triggers, handlers.refresh_menus, *menus(panels), **NOW)
    for panel in panels:
        panel.model.input(
            handlers.choose_model,
            [panel.model, panel.system, panel.default_system],
            [panel.system, panel.default_system, panel.about],
            **NOW,
        ).then(handlers.refresh_menus, *menus(panels), **NOW)  # the one before, of the focus, may be late with the old
        panel.reset_system.click(**HERE, inputs=panel.default_system, outputs=panel.system, js="own => own")
        gr.on(
            [panel.system.change, panel.default_system.change],
            **HERE,
            inputs=[panel.system, panel.default_system],
            outputs=panel.reset_system,
            js="(text, own) => ({__type__: 'update', interactive: text !== own})",
        )


def wire_lenses(lens: LensHandlers, panels: list[Panel], bar: PromptBar, controls: Controls, shown: gr.State) -> None:
    """They follow the typing through `typed`. While none is open, and nothing that is typed looks like a control token,
    it rests: then nothing is sent at all."""
    bar.prompt.change(**HERE, inputs=[bar.prompt, bar.typed], outputs=bar.typed, js=FOLLOW)
    bar.typed.change(
        lens.follow_key,
        [shown, bar.prompt, *(part for panel in panels for part in (panel.state, panel.lens.watched))],
        [bar.caution, *(panel.lens.view for panel in panels)],
        trigger_mode="always_last",
        **NOW,
    )
    gr.on(
        [
            *(trigger for panel in panels for trigger in (panel.system.change, panel.model.change)),
            controls.sampling.max_new_tokens.input,
            *(control.input for control in controls.prompting.inputs),
        ],
        lens.follow,
        [shown, *controls.typing(bar), *glances(panels)],
        [bar.caution, *(panel.lens.view for panel in panels)],
        trigger_mode="always_last",
        **NOW,
    )
    for panel in panels:
        inputs = [*controls.typing(bar), *panel.glance]
        opened = panel.lens.box.expand(lens.open, [bar.typed, *inputs], panel.lens.view, **NOW)
        opened.then(**HERE, inputs=bar.prompt, outputs=bar.typed, js=CATCH_UP)
        panel.lens.box.collapse(lens.close, panel.lens.watched, panel.lens.view, **NOW)
        switches = [panel.lens.mode.input, panel.lens.with_ids.input, panel.lens.every_turn.input]
        gr.on(switches, lens.looks, inputs, panel.lens.view, **NOW)


def wire_templates(lens: LensHandlers, panels: list[Panel]) -> None:
    """The text is put in where its view is opened, or the model changes under it; each key is checked."""
    own = lens.templates
    for panel in panels:
        drawn, editor = panel.lens, panel.lens.editor
        place = [drawn.mode, panel.model, editor.written]
        gr.on([drawn.mode.input, drawn.box.expand], partial(own.fill, True), place, editor.text, **NOW)
        panel.model.change(lens.fill_editor, [drawn.watched, *place], editor.text, **NOW)
        edited = [editor.text, panel.model, editor.written]  # `input` hears keys alone, `change` what is pasted too
        editor.text.change(own.edit, edited, [editor.written, drawn.view], trigger_mode="always_last", **NOW)
        editor.reset.click(own.reset, panel.model, [editor.text, editor.written, drawn.view], **NOW)


def wire_side_by_side(
    own: SideBySideHandlers, drawer: SideBySide, panels: list[Panel], bar: PromptBar, shown: gr.State
) -> None:
    """It follows the typing through `laid`, which rests while the drawer is closed: then nothing is sent at all."""
    place = [shown, bar.prompt, *(part for panel in panels for part in (panel.state, panel.model))]
    opened = drawer.box.expand(own.open, place, [drawer.is_open, drawer.view], **NOW)
    opened.then(**HERE, inputs=bar.prompt, outputs=drawer.laid, js=CATCH_UP)
    drawer.box.collapse(own.close, None, [drawer.is_open, drawer.view], **NOW)
    bar.prompt.change(**HERE, inputs=[bar.prompt, drawer.laid], outputs=drawer.laid, js=FOLLOW_SIDE_BY_SIDE)
    gr.on(
        [drawer.laid.change, shown.change, *(panel.model.change for panel in panels)],
        own.follow,
        [drawer.is_open, *place],
        drawer.view,
        trigger_mode="always_last",
        **NOW,
    )


def wire_layout(handlers: Handlers, panels: list[Panel], bar: PromptBar, shown: gr.State) -> None:
    layout = [shown, *(panel.column for panel in panels), *layout_buttons(panels, bar)]
    bar.add_panel.click(handlers.add_panel, shown, layout, **NOW)
    for panel in panels:
        remove = partial(handlers.remove_panel, panel.index)
        panel.remove.click(remove, [shown, panel.control], [*panel.answer, *layout], **NOW)


def wire_browser(bar: PromptBar, sampling: SamplingControls, page: gr.Blocks) -> None:
    """What needs no server: example prompts, a new seed, and a seed that is typed in stays."""
    for button, example in bar.examples:
        button.click(**HERE, inputs=None, outputs=bar.prompt, js=f"() => {json.dumps(example.text)}")
    draw = "() => crypto.getRandomValues(new Uint32Array(1))[0]"
    gr.on([page.load, sampling.new_seed.click], **HERE, inputs=None, outputs=sampling.seed, js=draw)
    sampling.seed.input(**HERE, inputs=None, outputs=sampling.fresh_seed, js="() => false")


def wire_adapters(own: AdapterHandlers, panels: list[Panel], bar: PromptBar, shown: gr.State) -> None:
    """A choice is checked in an event of its own, which may last as long as a download; a later one overtakes it."""
    everyone = [panel.adapter.chosen for panel in panels]
    for panel in panels:
        adapter = panel.adapter
        place = [panel.model, adapter.chosen, adapter.choosing, *everyone]
        checks: dict[str, Any] = {
            "outputs": adapter.outputs,
            "concurrency_id": f"adapter-{panel.index}",
            "concurrency_limit": STREAMS_PER_PANEL,
            "trigger_mode": "multiple",
            **QUIET,
        }
        adapter.menu.input(own.choose, [adapter.menu, *place], **checks)
        gr.on([adapter.use.click, adapter.text.submit], own.use_typed, [adapter.text, *place], **checks)
        adapter.cancel.click(own.cancel, [adapter.chosen, adapter.choosing], adapter.outputs, **NOW)
        adapter.menu.focus(own.refresh_menu, [panel.model, *everyone], adapter.menu, **NOW)
        panel.model.input(own.change_model, place, adapter.outputs, **NOW)
        others = [panels[place] for place in candidates(panel.index, len(panels))]
        adapter.compare.click(
            partial(Comparing(own).compare, panel.index),
            [shown, panel.model, panel.system, *(part for other in others for part in other.neighbour)],
            [bar.hint, shown, *layout_buttons(panels, bar), *(part for other in others for part in other.everything)],
            **NOW,
        )


def wire_devices(devices: DevicesView, own: DeviceHandlers, handlers: Handlers, panels: list[Panel]) -> None:
    """The clock ticks while the box is open; while it is closed nothing is sent at all."""
    devices.box.expand(own.open, None, [devices.clock, devices.picture, devices.message], **NOW)
    devices.box.collapse(own.close, None, devices.clock, **NOW)
    devices.clock.tick(own.picture, None, devices.picture, **NOW)
    pressed = devices.picture.click(own.act, None, [devices.picture, devices.message], trigger_mode="multiple", **NOW)
    pressed.then(handlers.refresh_menus, *menus(panels), **NOW)


def wire_about(own: AboutHandlers, panels: list[Panel]) -> None:
    """A card follows its panel's menu while it is open; what a closed one would need is not sent."""
    for panel in panels:
        card = panel.card.card
        panel.card.box.expand(own.open, panel.model, card, **NOW)
        panel.card.box.collapse(**HERE, inputs=None, outputs=card, js="() => ''")
        is_open = "(model, card) => [model, card ? 'open' : '']"
        panel.model.change(own.follow, [panel.model, card], card, js=is_open, **NOW)


def layout_buttons(panels: list[Panel], bar: PromptBar) -> list[gr.components.Component]:
    """The outputs of `handlers.buttons`."""
    return [*(panel.remove for panel in panels), bar.add_panel]


def menus(panels: list[Panel]) -> tuple[list[gr.components.Component], list[gr.components.Component]]:
    """Inputs and outputs of what keeps the menus true."""
    models: list[gr.components.Component] = [panel.model for panel in panels]
    return [*models, *(panel.place.state for panel in panels)], [*models, *(panel.about for panel in panels)]


def glances(panels: list[Panel]) -> list[gr.components.Component]:
    return [part for panel in panels for part in panel.glance]
