"""Benchmark figures in the catalog: ours to the digit, which is larger, a user's own, and how a wrong one is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from catalog_text import rewrite
from pydantic import ValidationError

from model_registry.__main__ import main
from model_registry.benchmarks import Benchmark
from model_registry.registry import Registry
from playground.errors import CatalogError

DOCS = Path(__file__).parents[2] / "docs" / "adding-a-model.md"

ENGLISH = """
arc .517/.557, bigbench .359/.330, boolq .803/.843, copa .78/.82, hellaswag .754/.740, jeopardy .306/.286,
lambada_openai .695/.682, logiqa .332/.3195, mathqa .436/.440, mmlu .472/.495, openbookqa .44/.464, piqa .7601/.7726,
simple arithmetic .160/.077, squad .3565/.369, winograd .8645/.828, winogrande .681/.697,
average of this table .54/.54, average in the card's overview .55/.57
"""
"""Llama2Chat-7B / Krutrim-1-7B."""

LANGUAGES = ("bn", "gu", "hi", "kn", "ml", "mr", "ta", "te")
INDIC = {
    "IndicCOPA": {
        "Krutrim-1-7B": ".89 .83 .86 .88 .88 .87 .89 .89",
        "GPT-3.5": ".77 .73 .77 .74 .75 .70 .72 .75",
        "Airavata": "- - .74 - - - - -",
        "Kan-LLaMA": "- - - .74 - - - -",
        "Tam-LLaMA": "- - - - - - .77 -",
    },
    "IndicQA": {
        "Krutrim-1-7B": ".65 .64 .64 .60 .66 .58 .75 .83",
        "Airavata": "- - .62 - - - - -",
        "Kan-LLaMA": "- - - .52 - - - -",
        "Tam-LLaMA": "- - - - - - .35 -",
    },
    "IndicSentiment": {
        "Krutrim-1-7B": ".95 .96 .96 .95 .96 .97 .94 .95",
        "GPT-3.5": ".50 .81 .96 .60 .75 .88 .51 .53",
        "Airavata": "- - .84 - - - - -",
        "Kan-LLaMA": "- - - .85 - - - -",
        "Tam-LLaMA": "- - - - - - .78 -",
    },
    "IndicTranslation": {
        "Krutrim-1-7B": ".88 .89 .95 .88 .89 .92 - .88",
        "Airavata": "- - .94 - - - - -",
        "Kan-LLaMA": "- - - .59 - - - -",
    },
    "IndicXParaphrase": {
        "Krutrim-1-7B": ".91 - .97 .82 .90 .94 - .61",
        "Airavata": "- - .60 - - - - -",
        "Kan-LLaMA": "- - - .59 - - - -",
    },
}

TABLE = {
    "title": "A",
    "by": "task",
    "source": "card",
    "models": ["Ours", "Theirs", "Another"],
    "this_model": "Ours",
    "figures": {
        "close": ["0.9", "0.10", "0.89"],
        "tie": ["0.54", "0.540", "0.5"],
        "alone": ["0.3", "-", "-"],
        "nobody": ["-", "-", "-"],
    },
}


@pytest.fixture(scope="module")
def krutrim() -> dict[str, Benchmark]:
    return {benchmark.title: benchmark for benchmark in Registry.load().get("krutrim-1-instruct").benchmarks}


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    """The examples of the docs, put together."""
    model, *card = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "my-model.toml"
    path.write_text(f"{model}\n{card[0]}", encoding="utf-8")
    return path


def written(figure: str) -> str:
    """As the card writes it: with the zero in front."""
    return figure if figure == "-" else f"0{figure}"


def test_the_english_figures_are_the_cards(krutrim: dict[str, Benchmark]) -> None:
    said = [item.strip().rsplit(" ", 1) for item in ENGLISH.split(",")]
    english = krutrim["English"]
    assert english.models == ("Llama2Chat-7B", "Krutrim-1-7B")
    assert english.this_model == "Krutrim-1-7B"
    assert english.by == "task"
    assert list(english.figures.items()) == [
        (task, tuple(written(figure) for figure in figures.split("/"))) for task, figures in said
    ]


@pytest.mark.parametrize("title", INDIC)
def test_the_indic_figures_are_the_cards(krutrim: dict[str, Benchmark], title: str) -> None:
    columns = {model: [written(figure) for figure in figures.split()] for model, figures in INDIC[title].items()}
    found = krutrim[title]
    assert found.models == tuple(columns)
    assert (found.this_model, found.by, found.source) == ("Krutrim-1-7B", "language", "card")
    assert tuple(found.figures) == LANGUAGES
    rows = list(found.figures.values())
    assert {model: [row[place] for row in rows] for place, model in enumerate(found.models)} == columns


def test_there_are_no_other_figures(krutrim: dict[str, Benchmark]) -> None:
    assert set(krutrim) == {"English", *INDIC}
    assert [spec.id for spec in Registry.load() if spec.benchmarks] == ["krutrim-1-instruct"]


@pytest.mark.parametrize(
    ("task", "larger"),
    [
        ("arc", {"Krutrim-1-7B"}),
        ("simple arithmetic", {"Llama2Chat-7B"}),
        ("logiqa", {"Llama2Chat-7B"}),  # .3195 is bold on the card
        ("piqa", {"Krutrim-1-7B"}),
        ("average of this table", {"Llama2Chat-7B", "Krutrim-1-7B"}),
        ("average in the card's overview", {"Krutrim-1-7B"}),
    ],
)
def test_the_larger_figure_of_the_card_is_computed(krutrim: dict[str, Benchmark], task: str, larger: set[str]) -> None:
    assert krutrim["English"].largest(task) == larger


def test_the_largest_is_found_by_value_in_ties_and_with_gaps(krutrim: dict[str, Benchmark]) -> None:
    table = Benchmark.model_validate(TABLE)
    assert table.largest("close") == {"Ours"}
    assert table.largest("tie") == {"Ours", "Theirs"}
    assert table.largest("alone") == table.largest("nobody") == frozenset()
    assert krutrim["IndicSentiment"].largest("hi") == {"Krutrim-1-7B", "GPT-3.5"}


@pytest.mark.parametrize(
    ("top", "scale"), [("0.97", 1), ("1.000", 1), ("1.01", 10), ("7.2", 10), ("85", 100), ("-", 1), ("0", 1)]
)
def test_a_bar_of_full_width_stands_for_a_power_of_ten(top: str, scale: int) -> None:
    assert Benchmark.model_validate({**TABLE, "figures": {"a": ["0.5", top, "-"]}}).full_scale == scale


def test_what_the_cards_say_beside_the_figures() -> None:
    registry = Registry.load()
    kullm, krutrim = registry.get("kullm3"), registry.get("krutrim-1-instruct")
    assert any("gpt-4-0125-preview" in item.text and item.source == "card" for item in kullm.evaluation)
    assert any("0.57 for Krutrim against 0.55" in item.text for item in krutrim.evaluation)
    assert any("bold marks" in item.text for item in krutrim.evaluation)
    for spec in registry:
        assert all(item.name and item.text and item.source for item in spec.details), spec.id


def test_the_example_of_the_docs_is_a_catalog_file(user_file: Path) -> None:
    spec = Registry.load(user_file).get("my-model")
    english, indic = spec.benchmarks
    assert (english.metric, english.figures["arc"]) == ("accuracy", ("0.540", "0.551"))
    assert english.largest("simple arithmetic") == frozenset()
    assert indic.largest("ta") == {"My-Model-3B", "Other-3B"}
    assert spec.details[0].name == "Positions"


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ('"0.540"', "0.540", "arc = [", r"`benchmarks.0.figures.arc.0`: write a figure as text, as its source does"),
        ('"0.540"', '"54 %"', "arc = [", r"`benchmarks.0.figures.arc.0`: write a figure as text"),
        ('"0.540"', '"NaN"', "arc = [", r"`benchmarks.0.figures.arc.0`: write a figure as text"),
        ('"0.31", "-"', '"0.31"', "[[benchmarks]]", r"`benchmarks.0`: `figures` needs 2 for 'simple arithmetic', .* 1"),
        ('"0.31"', '"-0.31"', '"simple arithmetic"', r"`benchmarks.0.figures.simple arithmetic.0`: write"),
        ('ta = ["0.77"', 'ta = ["0,77"', "ta = [", r"`benchmarks.1.figures.ta.0`: write a figure as text"),
        ('metric = "', 'unit = "', "unit = ", r"unknown key `benchmarks.0.unit`"),
        ('title = "IndicCOPA"\n', "", '[[benchmarks]]\nby = "language"', r"the key `benchmarks.1.title` is missing"),
        ('by = "task"', 'by = "colour"', "by = ", r"`benchmarks.0.by`: .*'task' or 'language'"),
        (
            'this_model = "My',
            'this_model = "Your',
            "[[benchmarks]]",
            r"`this_model` is 'Your-Model-3B', which is none",
        ),
        ('"Other-3B"]', '"My-Model-3B"]', "[[benchmarks]]", r"`models` names one of them twice"),
        ('name = "Positions"\n', "", "[[details]]", r"the key `details.0.name` is missing"),
    ],
)
def test_a_wrong_one_is_told_with_file_key_and_line(user_file: Path, old: str, new: str, key: str, says: str) -> None:
    text = rewrite(user_file, old, new).read_text(encoding="utf-8")
    line = text[: text.index(key)].count("\n") + 1
    with pytest.raises(CatalogError, match=says) as caught:
        Registry.load(user_file)
    assert str(caught.value).startswith(f"{user_file}: line {line}: ")


def test_a_table_without_rows_or_columns_is_none() -> None:
    for empty in ({"figures": {}}, {"models": []}):
        with pytest.raises(ValidationError):
            Benchmark.model_validate({**TABLE, **empty})


def test_show_prints_the_figures_and_marks_the_larger(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "krutrim-1-instruct"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "jeopardy 0.306 * 0.286" in lines
    assert "average of this table 0.54 * 0.54 *" in lines
    assert "ta - - -" in lines
    assert "positions: ALiBi; no rotary and no learned positions [paper (arXiv 2502.09642)]" in lines
