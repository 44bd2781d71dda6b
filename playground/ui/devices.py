"""The devices view: what lies in each device's memory, live, with a button for each model to unload it or give it up.

Asked for only while it is open. Knows no panel; the markup is `device_view`'s. Drawn by `build`, wired by `events`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from model_registry.registry import Registry
from playground.errors import PlaygroundError
from playground.ui import device_view, view

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool

REFRESH_S = 1.0
HAVE_A_ROW = ("ready", "loading", "failed")

SEND_ACTION = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  button.disabled = true;
  setTimeout(() => (button.disabled = false), 1000);
  trigger("click", { action: button.dataset.action, model_id: button.dataset.model });
})"""
"""One listener for all buttons: Gradio changes the rows in place, so that it and the focus stay."""

NOT_YOURS = "Models are not unloaded from this page, because others use them too."
UNEXPECTED = "Unexpected error: the log has the details."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DevicesView:
    """`clock` ticks while the box is open; `message` says what the last button did."""

    box: gr.Accordion
    clock: gr.Timer
    picture: gr.HTML
    message: gr.HTML


def draw_devices() -> DevicesView:
    with gr.Accordion("Devices", open=False, elem_classes="devices-box") as box:
        picture = gr.HTML(js_on_load=SEND_ACTION, apply_default_css=False, elem_id="devices")
        message = gr.HTML(elem_id="devices-message")  # below, so that no row moves under the pointer
    return DevicesView(box, gr.Timer(REFRESH_S, active=False), picture, message)


@dataclass(frozen=True)
class DeviceHandlers:
    """`may_act`: whether whoever opens the page unloads models and gives up loads, which are everybody's."""

    registry: Registry
    pool: Pool
    may_act: bool = True

    async def open(self) -> list[Any]:
        """Inputs: none. Outputs: the clock, running; the picture; an empty message."""
        return [gr.Timer(active=True), await self.picture(), ""]

    async def close(self) -> Any:
        """Inputs: none. Outputs: the clock, stopped."""
        return gr.Timer(active=False)

    async def picture(self) -> str:
        """Inputs: none. Outputs: the picture as of now."""
        try:
            statuses = [self.pool.status(spec.id) for spec in self.registry]
            shown = [status for status in statuses if status.state in HAVE_A_ROW]
            return device_view.devices(self.registry, self.pool.memory(), shown, self.may_act)
        except PlaygroundError as error:
            return view.error_box(str(error))

    async def act(self, event: gr.EventData) -> list[str]:
        """Do what a button says. Inputs: none but the event, which anybody can make up. Outputs: picture, message."""
        try:
            message = view.hint(await self._act(event._data))
        except PlaygroundError as error:
            message = view.error_box(str(error))
        except Exception:
            log.exception("button of the devices view")
            message = view.error_box(UNEXPECTED)
        return [await self.picture(), message]

    async def _act(self, asked: Any) -> str:
        """Raises PlaygroundError."""
        if not self.may_act:
            raise PlaygroundError(NOT_YOURS)
        wish = asked if isinstance(asked, dict) else {}
        spec = self.registry.get(str(wish.get("model_id")))
        if wish.get("action") == "unload":
            await self.pool.unload(spec.id)
            return f"{spec.name} is unloaded. The next prompt to it loads it again."
        if self.pool.status(spec.id).state == "ready":
            return f"{spec.name} is loaded already. Unload gives its memory back."
        self.pool.cancel(spec.id)
        return f"Loading {spec.name} was cancelled. The next prompt to it loads it again."
