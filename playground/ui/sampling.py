"""The sampling controls: drawing them, and reading them as SamplingParams or one sentence about what is wrong.

Knows no panel and no engine. Drawn by `build`, read by the handlers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import gradio as gr
from pydantic import ValidationError

from playground.admission.lengths import check_answer, too_long
from playground.errors import SamplingError
from playground.limits import OPEN, Limits
from playground.types import MAX_SEED, SamplingParams, new_seed


class SamplingValues(NamedTuple):
    """What the controls hold, in their order; an emptied number field holds None."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    repetition_penalty: float | None
    max_new_tokens: int | None
    stop: str
    seed: int | None
    fresh_seed: bool


@dataclass(frozen=True)
class SamplingControls:
    temperature: gr.Slider
    top_p: gr.Slider
    top_k: gr.Number
    repetition_penalty: gr.Slider
    max_new_tokens: gr.Number
    stop: gr.Textbox
    seed: gr.Number
    fresh_seed: gr.Checkbox
    new_seed: gr.Button

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The components of `SamplingValues`, in its order."""
        return [getattr(self, name) for name in SamplingValues._fields]


def draw_sampling(longest: int | None = None) -> SamplingControls:
    """`longest`: the longest answer that may be asked for, in tokens."""
    with gr.Accordion("Sampling", open=False, elem_classes="sampling"):
        with gr.Row(elem_classes="controls"):
            temperature = gr.Slider(0, 2, 0.7, step=0.05, label="Temperature", info="0 is greedy")
            top_p = gr.Slider(0.05, 1, 0.95, step=0.01, label="Top-p", info="1 switches it off")
            repetition_penalty = gr.Slider(0.5, 2, 1, step=0.01, label="Repetition penalty", info="1 is none")
            top_k = gr.Number(0, label="Top-k", info="0 switches it off", precision=0, minimum=0)
            max_new_tokens = _draw_longest_answer(longest)
        with gr.Row(elem_classes="controls"):
            stop = gr.Textbox(
                "", label="Stop strings", info="one a line; an answer ends before them", lines=2, max_lines=4
            )
            seed = gr.Number(0, label="Seed", info="same seed, same answer", precision=0, elem_id="seed")
            with gr.Column(min_width=180, elem_classes="seed-choice"):
                fresh_seed = gr.Checkbox(True, label="New seed for each prompt")
                button = gr.Button("New seed", size="sm", elem_id="new-seed")
    return SamplingControls(
        temperature, top_p, top_k, repetition_penalty, max_new_tokens, stop, seed, fresh_seed, button
    )


def _draw_longest_answer(longest: int | None) -> gr.Number:
    usual: int = SamplingParams.model_fields["max_new_tokens"].default
    return gr.Number(
        usual if longest is None else min(usual, longest),
        label="Longest answer",
        info="in tokens" if longest is None else f"in tokens, at most {longest:,}",
        precision=0,
        minimum=1,
        maximum=longest,
    )


def read_sampling(values: SamplingValues, limits: Limits = OPEN) -> SamplingParams:
    """The controls as parameters; a fresh seed is drawn where the user wants one.

    Raises:
        SamplingError: a control is empty, out of range or beyond the limits.
    """
    given = {name: value for name, value in values._asdict().items() if name not in ("stop", "fresh_seed", "seed")}
    empty = [LABELS[name] for name, value in given.items() if value is None]
    if empty:
        raise SamplingError(f"{empty[0]} is empty: give it a number under Sampling.")
    if sentence := too_long({LABELS["stop"]: values.stop}, limits):
        raise SamplingError(sentence)
    seed = new_seed() if values.fresh_seed or values.seed is None else values.seed
    try:
        read = SamplingParams.model_validate({**given, "stop": stop_strings(values.stop), "seed": seed})
    except ValidationError as error:
        raise SamplingError(_sentence(error)) from error
    check_answer(read.max_new_tokens, limits)
    return read


def stop_strings(text: str) -> tuple[str, ...]:
    """One stop string a line, to the letter; empty lines are none."""
    return tuple(line for line in text.split("\n") if line)


LABELS = {
    "temperature": "Temperature",
    "top_p": "Top-p",
    "top_k": "Top-k",
    "repetition_penalty": "Repetition penalty",
    "max_new_tokens": "Longest answer",
    "stop": "Stop strings",
    "seed": f"Seed (0 to {MAX_SEED:,})",
}


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    label = LABELS.get(str(first["loc"][0]), str(first["loc"][0])) if first["loc"] else "Sampling"
    return f"{label}: {first['msg'][0].lower()}{first['msg'][1:]}. Change it under Sampling."
