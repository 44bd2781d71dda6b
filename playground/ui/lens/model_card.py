"""A model's card as HTML: what its catalog entry says, each fact with its source, and its benchmark figures as bars.

Pure functions; every text of a catalog goes through `verbatim`. Which figure is the larger is computed, not read from
the source's marks. Knows no gradio component, no engine and no tokenizer. Called by `about`.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from model_registry.benchmarks import Benchmark
from model_registry.languages import language_name
from model_registry.spec import FACTS, Dimensions, ModelSpec, PromptFormat, Statement, Weights
from playground.types import TemplateSource
from playground.ui.view import amount, verbatim

LABELS = {
    "parameters": "Parameters",
    "dtype": "Number format",
    "context_length": "Context",
    "languages": "Languages",
    "released": "Released",
    "weights": "Weights",
    "dimensions": "Dimensions",
    "prompt": "Chat template",
}
"""One for each of `FACTS`."""

TEMPLATES: dict[TemplateSource, str] = {
    "tokenizer": "in the tokenizer's files",
    "card": "from the model card",
    "user": "from the catalog file",
    "none": "none: it continues the text that it is given",
}
HOW_MARKED = (
    "The larger figure of each group is marked by comparing the figures, not by the card's bold type. "
    "A model is left out of a group where the source gives no figure for it; this one then has a dash."
)
NOT_GIVEN = "not given"


def model_card(spec: ModelSpec) -> str:
    """The whole card, in a box that scrolls by itself."""
    parts = [_stand_in(spec), _facts(spec), _licences(spec), _list("Limits", spec.limits), _measured(spec)]
    return (
        f'<div class="model-card" tabindex="0" role="region" aria-label="About {verbatim(spec.name)}">'
        f"{''.join(parts)}</div>"
    )


def _stand_in(spec: ModelSpec) -> str:
    if spec.stand_in_for is None:
        return ""
    real = verbatim(spec.stand_in_for)
    return (
        f'<p class="stands-in">A tiny stand-in for <b>{real}</b>: all of this is about the stand-in. '
        f"Choose {real} in the menu above to read its card; that loads nothing yet.</p>"
    )


def _facts(spec: ModelSpec) -> str:
    known = [fact for fact in FACTS if getattr(spec, fact) is not None]
    rows = [(LABELS[fact], value(spec, fact), spec.sources.get(fact, "")) for fact in known]
    rows += [(detail.name, detail.text, detail.source) for detail in spec.details]
    body = "".join(_row(*row) for row in rows)
    head = '<tr><th scope="col">Fact</th><th scope="col">Value</th><th scope="col">Source</th></tr>'
    return f'<table class="facts"><thead>{head}</thead><tbody>{body}</tbody></table>'


def _row(name: str, text: str, source: str) -> str:
    cells = f'<td>{verbatim(text)}</td><td class="source">{verbatim(source)}</td>'
    return f'<tr><th scope="row">{verbatim(name)}</th>{cells}</tr>'


def value(spec: ModelSpec, fact: str) -> str:
    """A fact in words, as plain text."""
    found = getattr(spec, fact)
    match fact:
        case "parameters":
            return f"{found / 1e9:.2f} B ({found:,})" if found >= 1e9 else f"{found / 1e6:.1f} M ({found:,})"
        case "context_length":
            return f"{found:,} tokens"
        case "languages":
            return ", ".join(_language(code) for code in found)
        case "weights":
            return _weights(found)
        case "dimensions":
            return _dimensions(found)
        case "prompt":
            return _prompt(found)
    return str(found)


def _language(code: str) -> str:
    name = language_name(code)
    return code if name == code else f"{name} ({code})"


def _weights(weights: Weights) -> str:
    """A folder by its last part: where it lies is the server's own business."""
    revision = "" if weights.revision == "main" else f" at {weights.revision}"
    place = f"the folder {weights.path.name}" if weights.path else f"{weights.hub}{revision} on the Hub"
    return f"{amount(weights.bytes)}, {place}"


def _dimensions(sizes: Dimensions) -> str:
    cached = f" ({sizes.cache_head_dim} in the KV cache)" if sizes.cache_head_dim else ""
    tied = "shared with" if sizes.tied_embeddings else "apart from"
    return (
        f"{sizes.layers} layers, hidden size {sizes.hidden_size:,}, {sizes.heads} attention heads, "
        f"{sizes.kv_heads} key/value heads, head size {sizes.head_dim}{cached}, "
        f"vocabulary {sizes.vocab_size:,}, embeddings {tied} the output layer"
    )


def _prompt(prompt: PromptFormat) -> str:
    said = [TEMPLATES[prompt.template_source]]
    said += ["brings a system prompt of its own"] if prompt.default_system else []
    said += [] if prompt.system_role else ["no place for a system prompt"]
    said += [] if prompt.multi_turn else ["one turn only"]
    return "; ".join(said)


def _licences(spec: ModelSpec) -> str:
    if len({item.text for item in spec.licences}) == 1:
        return _list("Licence", spec.licences)
    differ = "<p>The sources differ. Each is shown; which of them holds is for you to find out before you use it.</p>"
    return _list("Licence", spec.licences, differ)


def _list(title: str, items: Iterable[Statement], before: str = "") -> str:
    rows = "".join(f"<li>{verbatim(item.text)} {_source(item.source)}</li>" for item in items)
    return f"<section><h3>{title}</h3>{before}<ul>{rows}</ul></section>" if rows else ""


def _source(source: str) -> str:
    return f'<span class="source">(source: {verbatim(source)})</span>'


def _measured(spec: ModelSpec) -> str:
    charts = "".join(chart(benchmark) for benchmark in spec.benchmarks)
    if not charts:
        return _list("How it was measured", spec.evaluation)
    said = _list("Benchmarks", spec.evaluation) or "<section><h3>Benchmarks</h3></section>"
    return f'{said}<p class="how-marked">{HOW_MARKED}</p><div class="charts">{charts}</div>'


def chart(benchmark: Benchmark) -> str:
    """Bars grouped by task or by language; a table for whoever cannot see them."""
    groups = "".join(_group(benchmark, row) for row in benchmark.figures)
    metric = f", {verbatim(benchmark.metric)}" if benchmark.metric else ""
    first = "Language" if benchmark.by == "language" else "Task"
    return (
        f'<table class="chart"><caption><b>{verbatim(benchmark.title)}</b>{metric} {_source(benchmark.source)} '
        f"<span>bars from 0 to {benchmark.full_scale}</span></caption>"
        f'<thead><tr><th scope="col">{first}</th><th scope="col">Model</th>'
        f'<th scope="col">Figure</th></tr></thead>{groups}</table>'
    )


def _group(benchmark: Benchmark, row: str) -> str:
    """A task or language: the models with a figure, and this one in any case."""
    given = benchmark.given(row)
    shown = [model for model in benchmark.models if model in given or model == benchmark.this_model]
    name = language_name(row) if benchmark.by == "language" else row
    head = f'<th scope="rowgroup" rowspan="{len(shown)}">{verbatim(name)}</th>'
    lines = [_line(benchmark, row, model) for model in shown]
    return f"<tbody><tr>{head}{'</tr><tr>'.join(lines)}</tr></tbody>"


def _line(benchmark: Benchmark, row: str, model: str) -> str:
    """The model on its bar, then the figure to the digit, and whether it is the largest of its group."""
    given = benchmark.given(row)
    ours = ' class="ours"' if model == benchmark.this_model else ""
    share = given[model] / benchmark.full_scale * 100 if model in given else Decimal(0)
    bar = f'<i style="width:{share:.2f}%"></i>' if share else ""
    head = f'<th scope="row"{ours}><span>{verbatim(model)}</span><div>{bar}</div></th>'
    if model not in given:
        return f'{head}<td>–<span class="unseen"> {NOT_GIVEN}</span></td>'
    figure = verbatim(benchmark.figures[row][benchmark.models.index(model)])
    mark = _mark(benchmark, row, model)
    return f'{head}<td><b>{figure}</b> <span class="mark">{mark}</span></td>' if mark else f"{head}<td>{figure}</td>"


def _mark(benchmark: Benchmark, row: str, model: str) -> str:
    largest = benchmark.largest(row)
    if model not in largest:
        return ""
    return "tie" if len(largest) > 1 else "larger" if len(benchmark.given(row)) == 2 else "largest"
