"""Chat templates: which one a model's prompts are written with, rendering it, and what is wrong with a user's own.

A template is a program. It runs in transformers' sandbox, and one that a user typed also under a time limit, because it
is run at each key that is pressed. Knows no spans and no tokens. Called by the encoder; `check_template` by the UI too.
"""

from __future__ import annotations

import re
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import jinja2.ext
from jinja2 import TemplateSyntaxError, nodes
from jinja2.lexer import TOKEN_EOF, TOKEN_POW, Token, TokenStream, newline_re
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from model_registry.spec import ModelSpec
from playground.errors import TemplateError
from playground.prompting.prompt import TemplateUsed
from playground.types import Message, TemplateSource, half_character

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEADLINE_S = 2.0
"""Seconds that a user's template may take for one prompt."""

MAX_SOURCE_BYTES = 64_000
MAX_RESULT_BYTES = 4_000_000

NO_POWERS = "`**` is not allowed: one such sum can hold up the whole page, and no deadline reaches into it"


HALF_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TemplateFault:
    """What is wrong with a template's text, and where: line and column count from 1, in characters.

    `message` is a sentence without its full stop; `column` is None where only the line is known.
    """

    line: int
    column: int | None
    message: str

    @property
    def sentence(self) -> str:
        place = f"Line {self.line}" if self.column is None else f"Line {self.line}, column {self.column}"
        return f"{place}: {self.message}."


def choose_template(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> tuple[TemplateUsed, tuple[str, ...]]:
    """The model's own template, and a note where it is not from where it should be. Raises TemplateError."""
    own = tokenizer.chat_template
    if isinstance(own, dict):  # some tokenizers have several, by purpose
        own = own.get("default")
    if spec.prompt.template_source == "tokenizer" and isinstance(own, str):
        return _used("tokenizer", own), ()
    if spec.prompt.template is None:
        raise TemplateError(
            f"The tokenizer of {spec.name} has no chat template, and its catalog entry names none: "
            "add `template_file` and `template_source` under [prompt]."
        )
    if spec.prompt.template_source == "tokenizer":
        note = "The tokenizer's files have no chat template: the catalog's is used."
        return _used("card", spec.prompt.template), (note,)
    return _used(spec.prompt.template_source, spec.prompt.template), ()


def user_template(text: str) -> TemplateUsed:
    """A template that a user typed. Raises TemplateError, with line and column, where it cannot be used."""
    if fault := check_template(text):
        raise TemplateError(f"Your template cannot be used. {fault.sentence}")
    return _used("user", text)


def _used(source: TemplateSource, text: str) -> TemplateUsed:
    return TemplateUsed(source, text, sha256(text.encode()).hexdigest())


def render(tokenizer: PreTrainedTokenizerBase, template: TemplateUsed, messages: Sequence[Message], name: str) -> str:
    """The text of a prompt: the messages as the template writes them, and the cue for an answer unless the last
    message is one. `name` is the model's, for errors.

    Raises:
        TemplateError: the template refuses the messages; or it is a user's, and fails (the line is named), takes longer
            than DEADLINE_S, writes nothing or more than MAX_RESULT_BYTES.
    """
    dicts = [message.model_dump() for message in messages]

    def write() -> str:
        text = tokenizer.apply_chat_template(
            dicts,
            chat_template=template.text,
            add_generation_prompt=messages[-1].role != "assistant",
            tokenize=False,
        )
        return cast(str, text)

    if template.source == "user":
        return _render_users(write)
    try:
        return write()
    except Exception as error:  # a template is a program of whoever wrote it: anything may come out of it
        raise TemplateError(f"{name}'s chat template refuses these messages: {_reason(error)}.") from error


def _render_users(write: Callable[[], str]) -> str:
    try:
        text = within(DEADLINE_S, write)
    except _OverdueError as error:
        raise TemplateError(f"Your template takes longer than {DEADLINE_S:g} seconds{_line(error)}.") from error
    except Exception as error:
        raise TemplateError(f"Your template fails{_line(error)}: {_reason(error)}.") from error
    if not text:
        raise TemplateError("Your template writes nothing for these messages, and a model cannot answer that.")
    if HALF_CHARACTER.search(text):
        raise TemplateError(f"Your template writes something that is no text: {half_character(text)}.")
    size = len(text.encode())
    if size > MAX_RESULT_BYTES:
        raise TemplateError(f"Your template writes {size / 1e6:,.0f} MB; {MAX_RESULT_BYTES / 1e6:g} MB is the limit.")
    return text


def _reason(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__


def _line(error: BaseException) -> str:
    """Such as " in line 3": the innermost line of the template that the error passed through, "" if none."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            compiled = trace.tb_frame.f_globals.get("__jinja_template__")  # jinja2 has replaced its frames otherwise
            line = compiled.get_corresponding_lineno(trace.tb_lineno) if compiled else trace.tb_lineno
        trace = trace.tb_next
    return f" in line {line}" if line else ""


class _OverdueError(BaseException):
    """Not an Exception, so that no `except Exception` on the way swallows it."""


def within(seconds: float, work: Callable[[], str]) -> str:
    """What `work` returns; it is broken off after some seconds, at the next line of Python that it runs.

    Time spent within a single call of C code is not interrupted. Raises _OverdueError.
    """
    end = time.monotonic() + seconds

    def trace(_frame: FrameType, _event: str, _argument: Any) -> Any:
        if time.monotonic() > end:
            raise _OverdueError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # of this thread alone, and of the frames that begin from here on
    try:
        return work()
    finally:
        sys.settrace(before)


def check_template(text: str) -> TemplateFault | None:
    """The first fault in a template's text, by parsing and compiling it; it is not run."""
    if len(text.encode(errors="surrogatepass")) > MAX_SOURCE_BYTES:
        return TemplateFault(1, None, f"The template is longer than {MAX_SOURCE_BYTES // 1000} kB")
    environment, source = _Environment(text), ""
    try:
        source = environment.compile(text, raw=True)
        compile(source, "<template>", "exec")
    except TemplateSyntaxError as error:
        return environment.fault(error)
    except SyntaxError as error:  # what jinja2 leaves to Python: a `break` outside of a loop, loops 20 deep
        return TemplateFault(_template_line(source, error.lineno or 0), None, _capital(error.msg))
    except (RecursionError, MemoryError):
        return TemplateFault(environment.last_line, None, "The template is nested too deeply")
    except ValueError as error:  # a number of too many digits
        return TemplateFault(environment.last_line, None, _capital(_reason(error)))
    return None


def _template_line(source: str, python_line: int) -> int:
    """The line of the template that a line of the Python made from it stands for; the table is at its end."""
    table = re.findall(r"(\d+)=(\d+)", source[source.rfind("\ndebug_info = ") :])
    return max((int(line) for line, of_python in table if int(of_python) <= python_line), default=1)


def _capital(message: str) -> str:
    return message[:1].upper() + message[1:].rstrip(".")


class _Line(int):
    """A line number that knows its column too: jinja2 hands it on from the token to the error."""

    column: int

    def __new__(cls, line: int, column: int) -> _Line:
        made = super().__new__(cls, line)
        made.column = column
        return made


class _Stream(TokenStream):
    """Ends with a token that stands where the text ends."""

    def __init__(self, tokens: Iterator[Token], end: _Line) -> None:
        self._end = end
        super().__init__(tokens, None, None)

    def close(self) -> None:
        super().close()
        self.current = Token(self._end, TOKEN_EOF, "")


class _Generation(jinja2.ext.Extension):
    """The tag that marks what an assistant said, which transformers knows and jinja2 does not."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Environment(ImmutableSandboxedEnvironment):
    """Parses one text as transformers' sandbox does, with tokens that know their columns.

    It folds no constants: that would run parts of the template.
    """

    def __init__(self, text: str) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        lines = newline_re.split(text)[::2]  # what counts as the end of a line in jinja2
        self._text = "\n".join(lines)
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._at = self._end = 0  # where the lexer is, and where its last token ends

    @property
    def last_line(self) -> int:
        """Of what was read."""
        return int(self._place(self._at))

    def fault(self, error: TemplateSyntaxError) -> TemplateFault:
        line, message = error.lineno, error.message or "It cannot be read"
        if not isinstance(line, _Line):  # the lexer's, which knows no more than its place in the text
            line, message = self._place(self._at), re.sub(r" at \d+$", "", message)
        return TemplateFault(int(line), line.column, _capital(message))

    def _tokenize(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> _Stream:
        if half := HALF_CHARACTER.search(self._text):
            raise TemplateSyntaxError(half_character(self._text), self._place(half.start()))
        return _Stream(self._tokens(), self._place(len(self._text.rstrip())))

    def _tokens(self) -> Iterator[Token]:
        for token in self.lexer.wrap(self._placed()):
            line = self._place(self._at)
            if token.type == TOKEN_POW:
                raise TemplateSyntaxError(NO_POWERS, line)
            yield Token(line, token.type, token.value)

    def _placed(self) -> Iterator[tuple[int, str, str]]:
        for line, kind, value in self.lexer.tokeniter(self._text, None):
            self._at = self._text.index(value, self._end)  # nothing lies between but space that is trimmed
            self._end = self._at + len(value)
            yield line, kind, value
            self._at = self._end

    def _place(self, offset: int) -> _Line:
        line = bisect_right(self._starts, offset)
        return _Line(line, offset - self._starts[line - 1] + 1)
