"""The house rules that a program can check: imports go one way, and each library stays in its room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    ROOT / "app.py",
    *sorted((ROOT / "playground").rglob("*.py")),
    *sorted((ROOT / "model_registry").rglob("*.py")),
    *sorted((ROOT / "spaces_config").rglob("*.py")),
]

# A module may import its own layer and the layers below it.
LAYERS = (
    ("playground.errors", "playground.types", "playground.log"),
    ("model_registry",),
    ("playground.settings", "playground.command_line", "playground.limits", "playground.hub_errors"),
    ("playground.prompting", "playground.placement", "playground.adapters", "playground.admission"),
    ("playground.engines",),
    ("playground.ui",),
    ("app", "spaces_config"),
)
LONG_FILES: frozenset[str] = frozenset()


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> int | None:
    for height, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return height
    return None


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def users_of(library: str) -> set[str]:
    return {
        module_name(path)
        for path in SOURCES
        if any(name == library or name.startswith(library + ".") for name in imports(path))
    }


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_go_down(path: Path) -> None:
    here = layer(module_name(path))
    if here is None:
        assert module_name(path) == "playground"
        return
    upward = {name for name in imports(path) if (there := layer(name)) is not None and there > here}
    assert not upward


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_file_is_a_room(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 300 or module_name(path) in LONG_FILES
    assert ast.get_docstring(ast.parse(text)), "every module opens with a docstring"


def test_there_are_no_circles() -> None:
    modules = {module_name(path): path for path in SOURCES}
    graph = {name: {m for m in imports(path) if m in modules and m != name} for name, path in modules.items()}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & set(graph)}
        assert leaves, f"these import each other in a circle: {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_gradio_stays_in_the_ui() -> None:
    users = users_of("gradio")
    assert users
    assert all(name.startswith("playground.ui") for name in users)


def test_torch_stays_out_of_ui_types_registry_and_planner() -> None:
    users = users_of("torch") | users_of("transformers")
    assert "playground.engines.checkpoints.loader" in users
    allowed = ("playground.engines", "playground.prompting", "model_registry.architectures", "model_registry.demo")
    adapters = tuple(f"playground.adapters.{name}" for name in ("base_layers", "sharing", "views"))
    alone = ("playground.placement.devices", *adapters)
    assert all(name.startswith(allowed) or name in alone for name in users)


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        module_name(p) for p in SOURCES if any(word in p.read_text("utf-8") for word in ("os.environ", "getenv"))
    }
    assert readers == {"playground.settings"}


def test_ci_runs_the_readmes_test_command() -> None:
    readme, ci = (ROOT / "README.md").read_text("utf-8"), (ROOT / ".ci" / "run").read_text("utf-8")
    assert [line for line in readme.splitlines() if line.startswith("python3 ") and line.endswith(" -m tests")]
    assert "README.md" in ci
