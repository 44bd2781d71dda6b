"""Benchmark figures as a source gives them, to the letter: tasks or languages down, models across.

Which figure of a row is the largest is computed here, never taken from how the source marks it. Part of a catalog entry
(`model_registry.spec`). Knows no file and no UI.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

NOT_GIVEN = "-"
A_FIGURE = re.compile(r"[0-9]+(\.[0-9]+)?|\.[0-9]+", re.ASCII)


def _as_given(value: Any) -> Any:
    """TOML's own numbers are refused: they would come out as 0.54 where the source says .540."""
    if isinstance(value, str) and (value == NOT_GIVEN or A_FIGURE.fullmatch(value)):
        return value
    raise ValueError('write a figure as text, as its source does, such as "0.540", or "-" where it gives none')


Figure = Annotated[str, BeforeValidator(_as_given)]
Name = Annotated[str, Field(min_length=1)]


class Benchmark(BaseModel):
    """One table of figures.

    by: what a row is: a task, or a language, named by its code.
    metric: what the figures measure, where the source says so.
    models: the columns, in the order of the figures; `this_model` is what the entry's own model is called there.
    figures: by task or language, one for each of `models`; "-" where the source gives none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Name
    by: Literal["task", "language"]
    metric: Name | None = None
    source: Name
    models: Annotated[tuple[Name, ...], Field(min_length=1)]
    this_model: Name
    figures: Annotated[dict[Name, tuple[Figure, ...]], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_a_table(self) -> Benchmark:
        if len(set(self.models)) < len(self.models):
            raise ValueError("`models` names one of them twice")
        if self.this_model not in self.models:
            raise ValueError(f"`this_model` is {self.this_model!r}, which is none of `models`")
        for row, figures in self.figures.items():
            if len(figures) != len(self.models):
                raise ValueError(
                    f"`figures` needs {len(self.models)} for {row!r}, one for each of `models`: it has {len(figures)}"
                )
        return self

    def given(self, row: str) -> dict[str, Decimal]:
        """The figures of a row by model, without those that the source does not give."""
        figures = zip(self.models, self.figures[row], strict=True)
        return {model: Decimal(figure) for model, figure in figures if figure != NOT_GIVEN}

    def largest(self, row: str) -> frozenset[str]:
        """The models with the largest figure of a row, all of them in a tie; none where there is nothing to compare."""
        given = self.given(row)
        return frozenset(model for model in given if given[model] == max(given.values()) and len(given) > 1)

    @property
    def full_scale(self) -> Decimal:
        """What a bar of full width stands for: the power of ten that no figure exceeds, 1 at least."""
        top = max((figure for row in self.figures for figure in self.given(row).values()), default=Decimal(0))
        scale = Decimal(1)
        while scale < top:
            scale *= 10
        return scale
