"""What programs send, read and checked: whatever is wrong with it is one sentence that names the place.

Knows no model, no engine and no component. Called by `endpoints`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from playground.errors import PlaygroundError
from playground.prompting.templates import check_template
from playground.types import MAX_ADAPTER_SCALE, Message, PromptOptions, SamplingParams, Text

TEXT: TypeAdapter[str] = TypeAdapter(Text)
OPTIONAL_TEXT: TypeAdapter[str | None] = TypeAdapter(Text | None)
SCALE: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(ge=0, le=MAX_ADAPTER_SCALE, allow_inf_nan=False)])
COUNT: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=1)])
MESSAGES = TypeAdapter(tuple[Message, ...])
SAMPLING = TypeAdapter(SamplingParams)
OPTIONS = TypeAdapter(PromptOptions)

NO_TEMPLATES = (
    "options.template: templates of one's own are switched off here, because others can reach this page. "
    "Leave it out, or start the app with --edit-templates."
)


def read_messages(messages: list[dict[str, str]] | str) -> tuple[Message, ...]:
    """Raises PlaygroundError."""
    read = checked("messages", _json("messages", messages), MESSAGES)
    if not read:
        raise PlaygroundError("messages is empty: give at least one message with role and content.")
    return read


def read_sampling_json(sampling: dict[str, Any] | str | None, longest: int) -> SamplingParams:
    """None and "" are no wishes at all; who names no length gets the usual one, or `longest` where that is less.

    Raises PlaygroundError.
    """
    wishes = _wishes("sampling", sampling)
    read = checked("sampling", wishes, SAMPLING)
    if "max_new_tokens" in read.model_fields_set:
        return read
    return read.model_copy(update={"max_new_tokens": min(read.max_new_tokens, longest)})


def read_options(options: dict[str, Any] | str | None, edit_templates: bool) -> PromptOptions:
    """None and "" are no wishes at all. A template's first fault is found here, before any model is loaded for it.

    edit_templates: whether a template may be sent. Raises PlaygroundError.
    """
    read = checked("options", _wishes("options", options), OPTIONS)
    if read.template is None:
        return read
    if not edit_templates:
        raise PlaygroundError(NO_TEMPLATES)
    if fault := check_template(read.template):
        raise PlaygroundError(f"options.template: {fault.sentence}")
    return read


def checked(name: str, value: Any, kind: TypeAdapter[Any]) -> Any:
    """Raises PlaygroundError."""
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        raise PlaygroundError(f"{where}: {first['msg']}.") from error


def _wishes(name: str, value: Any) -> Any:
    return {} if value is None or value == "" else _json(name, value)


def _json(name: str, value: Any) -> Any:
    """JSON text as what it says. Read by the standard library, which lets half a character pass, to be told apart."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (json.JSONDecodeError, RecursionError) as error:
        raise PlaygroundError(f"{name}: Invalid JSON: {error}.") from error
