"""The Space of the profile cpu-basic, from its built folder to the answers in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from a_space import built
from browser_panel import Playground
from gradio_client import Client
from playwright.sync_api import Page, expect
from space_server import running_space

KOREAN = "안녕하세요? 당신은 누구인가요?"
HINDI = "नमस्ते! आप कौन हैं?"


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Space that runs in its folder alone."""
    made, folder = built("cpu-basic", tmp_path_factory.mktemp("space"))
    with running_space(folder, made.environment()) as address:
        yield address


@pytest.fixture
def playground(page: Page, space: str) -> Playground:
    return Playground(page, space)


@pytest.mark.parametrize("prompt", [KOREAN, HINDI])
def test_the_stand_ins_answer(playground: Playground, prompt: str) -> None:
    playground.ask(prompt)
    for index in range(2):
        panel = playground.panel(index)
        panel.wait("ended by itself")
        assert panel.answer().strip()
        expect(panel.errors).to_have_count(0)
        expect(panel.root.locator(".badge")).to_contain_text("stand-in")


def test_its_adapters_are_offered(playground: Playground) -> None:
    panel = playground.panel(1)
    panel.put_on("Formal Korean (stand-in)")
    playground.ask(KOREAN)
    panel.wait("ended by itself")
    assert panel.answer().strip()


def test_the_limits_for_strangers_are_on(playground: Playground, space: str) -> None:
    prompt = "x" * 8_001
    playground.ask(prompt)
    expect(playground.page.get_by_text("8,001 characters, and at most 8,000 may be sent here")).to_be_visible()
    expect(playground.prompt).to_have_value(prompt)
    assert playground.panel(0).prompts.count() == 0
    client = Client(space, verbose=False, analytics_enabled=False)
    job = client.submit(
        "demo-kullm3", [{"role": "user", "content": KOREAN}], {"max_new_tokens": 1_025}, None, api_name="/generate"
    )
    with pytest.raises(Exception, match="1,024"):
        job.result()
