"""A model's card: facts with their sources, licences, limits, figures to the digit, the larger marked by comparing."""

from __future__ import annotations

import re

import pytest
from fakes import spec
from markup import read

from model_registry.benchmarks import Benchmark
from model_registry.languages import NAMES
from model_registry.registry import Registry
from model_registry.spec import FACTS, Detail, ModelSpec, Statement
from playground.errors import UnknownModelError
from playground.ui.lens.about import AboutHandlers
from playground.ui.lens.model_card import LABELS, chart, model_card, value

HOSTILE = "<img src=x onerror=alert(1)>\"'&"
TABLE = Benchmark(
    title="Ours and theirs",
    by="language",
    metric="accuracy",
    source="card",
    models=("Ours", "Theirs", "Another"),
    this_model="Ours",
    figures={
        "hi": ("0.90", "0.1", "0.89"),
        "ta": ("0.54", "0.540", "-"),
        "ko": ("-", "0.3", "-"),
        "xx": ("0.2", "0.31", "-"),
    },
)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def lines(markup: str) -> list[str]:
    """The text of each row of the tables, without the markup."""
    rows = re.findall(r"<tr>(.*?)</tr>", markup)
    return [" ".join(read(row.replace("</th>", "</th> ").replace("</td>", "</td> ")).text.split()) for row in rows]


def hostile() -> ModelSpec:
    said = (Statement(text=HOSTILE, source=HOSTILE),)
    table = Benchmark(
        title=HOSTILE,
        by="task",
        metric=HOSTILE,
        source=HOSTILE,
        models=(HOSTILE,),
        this_model=HOSTILE,
        figures={HOSTILE: ("0.5",)},
    )
    return spec("hostile", stand_in_for=HOSTILE).model_copy(
        update={
            "name": HOSTILE,
            "languages": (HOSTILE,),
            "licences": (*said, Statement(text="MIT", source="me")),
            "limits": said,
            "evaluation": said,
            "details": (Detail(name=HOSTILE, text=HOSTILE, source=HOSTILE),),
            "benchmarks": (table, table.model_copy(update={"by": "language"})),
            "sources": dict.fromkeys(FACTS, HOSTILE),
        }
    )


def test_nothing_that_a_catalog_says_opens_a_tag() -> None:
    card = read(model_card(hostile()))
    assert "img" not in card.tags
    plain = spec("plain").model_copy(update={"details": (), "limits": ()})
    assert set(card.tags) <= {*read(model_card(plain)).tags, *read(chart(TABLE)).tags, "section", "h3", "ul", "li", "p"}
    assert card.text.count(HOSTILE) == 2 + 1 + 7 + 3 + 2 * 3 + 2 * 5


def test_every_fact_stands_with_its_source(registry: Registry) -> None:
    card = lines(model_card(registry.get("krutrim-1-instruct")))
    assert "Parameters 7.35 B (7,350,000,000) arithmetic from the dimensions" in card
    assert "Context 4,096 tokens card" in card
    assert "Released 2024-01-31 card" in card
    assert "Positions ALiBi; no rotary and no learned positions paper (arXiv 2502.09642)" in card
    assert any(row.startswith("Languages English (en), Hindi (hi), Bengali (bn)") for row in card)
    assert any("32 layers, hidden size 4,608, 48 attention heads, 8 key/value heads" in row for row in card)


def test_every_model_of_the_catalog_has_a_card(registry: Registry) -> None:
    assert set(LABELS) == set(FACTS)
    for model in registry:
        text = read(model_card(model)).text
        known = [fact for fact in FACTS if getattr(model, fact) is not None]
        assert all(value(model, fact) in text and model.sources[fact] in text for fact in known), model.id
        assert all(item.text in text for item in (*model.licences, *model.limits, *model.details, *model.evaluation))
        assert set(model.languages) <= set(NAMES), "languages are shown by name"


def test_licences_that_differ_are_told_plainly(registry: Registry) -> None:
    kullm = read(model_card(registry.get("kullm3"))).text
    assert "The sources differ" in kullm
    assert "CC BY-NC 4.0 (source: card)" in kullm
    assert "Apache-2.0 (source: hub)" in kullm
    assert "The sources differ" not in read(model_card(registry.get("smollm2-135m-instruct"))).text


def test_a_stand_in_says_whose_and_shows_its_own_facts(registry: Registry) -> None:
    card = read(model_card(registry.get("demo-krutrim"))).text
    assert "A tiny stand-in for krutrim-1-instruct" in card
    assert "3.0 M (3,049,920)" in card
    assert "7.35 B" not in card
    assert "Benchmarks" not in card
    assert "stand-in" not in read(model_card(registry.get("krutrim-1-instruct"))).text


def test_a_folder_is_told_by_its_last_part(registry: Registry) -> None:
    demo = registry.get("demo-krutrim")
    assert demo.weights.path is not None
    assert "6.4 MB, the folder krutrim" in model_card(demo)
    assert str(demo.weights.path.parent) not in model_card(demo)


def test_an_evaluation_without_figures_gets_no_chart(registry: Registry) -> None:
    card = model_card(registry.get("kullm3"))
    assert "gpt-4-0125-preview" in card
    assert 'class="chart"' not in card
    assert "bold type" not in card


def test_the_cards_figures_are_printed_and_the_larger_is_marked(registry: Registry) -> None:
    card = model_card(registry.get("krutrim-1-instruct"))
    text = lines(card)
    for row in (
        "arc Llama2Chat-7B 0.517",
        "Krutrim-1-7B 0.557 larger",
        "jeopardy Llama2Chat-7B 0.306 larger",
        "Krutrim-1-7B 0.3195",
        "average of this table Llama2Chat-7B 0.54 tie",
        "average in the card's overview Llama2Chat-7B 0.55",
        "Hindi Krutrim-1-7B 0.96 tie",
        "GPT-3.5 0.96 tie",
        "Kannada Krutrim-1-7B 0.95 largest",
        "Tamil Krutrim-1-7B – not given",
    ):
        assert row in text, row
    assert card.count('<table class="chart">') == 6
    assert card.count("by comparing the figures, not by the card's bold type") == 1


def test_bars_are_as_long_as_the_figures_and_missing_ones_are_left_out() -> None:
    shown = chart(TABLE)
    assert lines(shown) == [
        "Language Model Figure",
        "Hindi Ours 0.90 largest",
        "Theirs 0.1",
        "Another 0.89",
        "Tamil Ours 0.54 tie",
        "Theirs 0.540 tie",
        "Korean Ours – not given",
        "Theirs 0.3",
        "xx Ours 0.2",
        "Theirs 0.31 larger",
    ]
    assert re.findall(r"width:([\d.]+)%", shown) == [
        "90.00", "10.00", "89.00", "54.00", "54.00", "30.00", "20.00", "31.00",
    ]  # fmt: skip
    assert "Ours and theirs, accuracy (source: card) bars from 0 to 1" in read(shown).text


def test_bars_are_drawn_to_a_scale_that_is_told() -> None:
    shown = chart(TABLE.model_copy(update={"figures": {"ko": ("85", "7", "100")}}))
    assert re.findall(r"width:([\d.]+)%", shown) == ["85.00", "7.00", "100.00"]
    assert "bars from 0 to 100" in shown


def test_a_reader_of_the_screen_hears_which_row_and_column() -> None:
    shown = chart(TABLE)
    assert shown.count('<th scope="col">') == 3
    assert re.findall(r'<th scope="rowgroup" rowspan="(\d)">(\w+)</th>', shown) == [
        ("3", "Hindi"), ("2", "Tamil"), ("2", "Korean"), ("2", "xx"),
    ]  # fmt: skip
    assert shown.count('<th scope="row"') == 9
    assert shown.count("<td>") == 9
    assert "<caption>" in shown


async def test_the_accordion_is_filled_while_it_is_open(registry: Registry) -> None:
    own = AboutHandlers(registry)
    kullm = model_card(registry.get("kullm3"))
    assert await own.open("kullm3") == kullm
    assert await own.follow("kullm3", "open") == kullm
    assert await own.follow("kullm3", "") == ""
    with pytest.raises(UnknownModelError):
        await own.open("nobody")
