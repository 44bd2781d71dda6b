"""A page for strangers, in a browser: the line, the login, a frame around it, and what it may load."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser_panel import Playground
from fakes import FakePool, Script, spec
from playwright.sync_api import Browser, Page, expect
from scripted_site import until
from serving import serving

from model_registry.registry import Registry
from playground.admission import frequency
from playground.limits import Limits

TOO_MUCH = """url => new Promise(resolve => {
  const refused = [];
  document.addEventListener("securitypolicyviolation", event => {
    refused.push(event.effectiveDirective);
    if (refused.length === 4) resolve(refused.sort());
  });
  const image = document.createElement("img"), frame = document.createElement("iframe");
  const script = document.createElement("script");
  image.src = frame.src = script.src = url;
  document.body.append(image, frame, script);
  fetch(url).catch(() => null);
})"""


@pytest.fixture(scope="module")
def pool() -> FakePool:
    scripts = {"slow": Script(["word "] * 20_000, pause_s=0.05), "quick": Script(["Hello."])}
    return FakePool(Registry([spec("slow"), spec("quick")]), scripts)


@pytest.fixture(scope="module")
def site(pool: FakePool) -> Iterator[str]:
    limits = Limits(places=1, waiting=1, prompt_characters=200, answer_tokens=100)
    with serving(pool, ["slow", "quick"], limits=limits, typed_folders=False) as url:
        yield url


def test_who_waits_sees_the_place_in_line_and_can_leave_it(
    playground: Playground, browser: Browser, site: str, pool: FakePool
) -> None:
    playground.ask("first")
    until(lambda: "word" in playground.panel(0).answer(), playground.page)
    context = browser.new_context()
    other = Playground(context.new_page(), site)
    other.ask("second")
    for index in range(2):
        expect(other.panel(index).foot).to_contain_text("Waiting: 1st in line")
    context.close()  # gone, with all that waited
    third = Playground(browser.new_context().new_page(), site)
    third.ask("third")
    expect(third.panel(1).foot).to_contain_text("Waiting: 1st in line")
    third.press("Stop all")
    for index in range(2):
        third.panel(index).wait("stopped before the first word")
    third.ask("fourth")
    expect(third.panel(1).foot).to_contain_text("Waiting: 1st in line")
    playground.press("Stop all")
    third.panel(1).wait("ended by itself")
    third.press("Stop all")
    third.panel(0).wait("stopped")
    assert {request.messages[-1].content for request in pool.requests} == {"first", "fourth"}
    third.page.context.close()


def test_a_prompt_that_is_too_long_stays_and_the_field_for_answers_knows_its_end(playground: Playground) -> None:
    playground.ask("x" * 201)
    expect(playground.page.locator("#hint")).to_contain_text(
        "Prompt: 201 characters, and at most 200 may be sent here."
    )
    expect(playground.prompt).to_have_value("x" * 201)
    playground.page.get_by_role("button", name="Sampling").click()
    expect(playground.page.get_by_label("Longest answer")).to_have_value("100")


def test_who_is_refused_before_any_handler_is_told_why_and_keeps_the_prompt(
    browser: Browser, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frequency, "MINUTE_S", 8.0)
    pool = FakePool(Registry([spec("quick")]), {"quick": Script(["Hello."])})
    with serving(pool, ["quick"], limits=Limits(new_sessions_per_minute=1)) as url:
        first = browser.new_context().new_page()
        Playground(first, url)
        late = Playground(page, url)
        refusal = page.locator("#prompt-bar .refused")
        expect(refusal).to_contain_text("Too many new pages from your address: wait")
        late.ask("hello")
        expect(refusal).to_have_count(1)
        expect(late.prompt).to_have_value("hello")
        page.wait_for_timeout(8_000)
        late.press("Send")
        late.panel(0).wait("ended by itself")
        assert late.panel(0).answer() == "Hello."
        expect(refusal).to_have_count(0)
        first.context.close()


def test_an_answer_that_the_server_has_no_room_for_is_told_and_can_be_asked_again(playground: Playground) -> None:
    page, full = playground.page, {"detail": "Queue is full. Max size is 1000 and size is 1000."}
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, json=full))
    playground.panel(0).press("Remove")
    playground.ask("hello")
    expect(page.locator("#prompt-bar .refused")).to_contain_text(
        "The server has too much to do to take this: press Stop"
    )
    page.unroute("**/queue/join*")
    playground.press("Stop all")
    playground.panel(1).wait("stopped")
    playground.ask("again")
    playground.panel(1).wait("ended by itself")
    expect(page.locator("#prompt-bar .refused")).to_have_count(0)


def test_the_page_works_in_a_frame_as_spaces_show_it(page: Page, site: str) -> None:
    page.set_content(f'<iframe src="{site}" style="width: 1300px; height: 800px"></iframe>')
    frame = page.frame_locator("iframe")
    frame.get_by_role("button", name="Remove").first.click()
    expect(frame.locator("#panel-0")).to_be_hidden()
    frame.locator("#prompt textarea").fill("hello")
    frame.get_by_role("button", name="Send").click()
    expect(frame.locator("#panel-1 .foot")).to_contain_text("ended by itself")
    expect(frame.locator("#panel-1")).to_contain_text("Hello.")


def test_whatever_a_page_is_made_to_load_from_elsewhere_is_refused(browser: Browser, site: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    context.on("response", lambda response: asked.append(response.url))
    Playground(page, site)
    refused = page.evaluate(TOO_MUCH, "https://elsewhere.test/x.png")
    assert refused == ["connect-src", "frame-src", "img-src", "script-src-elem"]
    assert not [url for url in asked if "elsewhere" in url]
    context.close()


def test_where_users_are_named_the_page_asks_who_comes(page: Page) -> None:
    pool = FakePool(Registry([spec("quick")]))
    with serving(pool, ["quick"], users=(("asha", "correct-horse"),)) as url:
        page.goto(url)
        page.get_by_label("username").fill("asha")
        page.get_by_label("password").fill("correct-horse")
        page.get_by_role("button", name="Login").click()
        expect(page.locator("#prompt textarea")).to_be_visible()
        stored = page.evaluate("JSON.stringify({...localStorage, ...sessionStorage}) + document.body.innerHTML")
        assert "correct-horse" not in stored
