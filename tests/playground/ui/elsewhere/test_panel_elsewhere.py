"""A panel whose model runs on a server: what is asked, what its lens and probabilities say, and its adapter menu."""

from __future__ import annotations

from typing import Any

import pytest
from desk import SKIP, Desk
from fakes import Script, checked_adapter
from markup import read
from pydantic import SecretStr

from playground.types import EndpointUse, LikelyToken, ScoredPiece, SentAs, TokenScore
from playground.ui.adapter_state import NO_ADAPTER, Choosing, PanelAdapter
from playground.ui.adapters import NAMES, ON_SERVER, AdapterHandlers
from playground.ui.elsewhere.place import ANOTHER, PanelPlace
from playground.ui.lens.probabilities import ProbabilityHandlers, Showing

URL = "http://10.0.0.7:8000/v1"
KEY = "sk-tell-nobody-2357"


def elsewhere(messages_only: bool = False) -> PanelPlace:
    endpoint = EndpointUse(url=URL, model="far", key=SecretStr(KEY), messages_only=messages_only)
    return PanelPlace("a", ANOTHER, endpoint)


def desk_elsewhere(messages_only: bool = False, **script: Any) -> Desk:
    """The first panel's model runs on a server, the second's here."""
    desk = Desk(a=Script(**script))
    desk.places[0] = elsewhere(messages_only)
    return desk


async def test_a_panel_on_a_server_asks_it_without_an_adapter_and_nothing_is_loaded_for_it() -> None:
    desk = desk_elsewhere()
    desk.adapters[0] = PanelAdapter("formal", checked_adapter("a", "formal"))
    await desk.send("hi")
    assert desk.pool.preloaded == ["b"]
    await desk.answer()
    far, near = sorted(desk.pool.requests, key=lambda request: request.model_id)
    assert far.endpoint is not None
    assert (far.endpoint.model, far.endpoint.key.get_secret_value(), far.adapter) == ("far", KEY, None)
    assert near.endpoint is None
    assert desk.states[0].turns[0].sent_as == "token_ids"
    assert KEY not in repr(desk.states)
    turn = desk.states[0].turns[0]
    assert turn.request.endpoint is not None
    assert turn.request.endpoint.key.get_secret_value() == "", "who asks again brings the key along"
    await desk.regenerate(0)
    assert desk.controls[0].is_open


async def test_what_is_waited_for_is_the_server() -> None:
    desk = desk_elsewhere(pieces=[])
    await desk.send("hi")
    first, *_ = await desk.stream(0)
    assert "Asking 10.0.0.7:8000" in str(first)


@pytest.mark.parametrize(("messages_only", "is_sent"), [(False, False), (True, True)])
async def test_a_context_that_is_not_the_servers_refuses_nothing(messages_only: bool, is_sent: bool) -> None:
    desk = desk_elsewhere(messages_only)
    desk.shown = [True, False]
    await desk.send("p" * 1200)
    assert bool(desk.states[0].turns) == is_sent
    assert ("tokens too long" in desk.notices[0]) != is_sent


@pytest.mark.parametrize(
    ("sent_as", "before", "after"),
    [
        ("token_ids", "as these token ids where it takes them", "Went to 10.0.0.7:8000 as these token ids."),
        ("text", "as these token ids where it takes them", "Went to 10.0.0.7:8000 as this text."),
        ("messages", "as these token ids where it takes them", "what its template makes of them cannot be seen"),
    ],
)
async def test_the_lens_says_what_is_sent_and_what_was(sent_as: SentAs, before: str, after: str) -> None:
    desk = desk_elsewhere(sent_as=sent_as)
    assert before in await desk.look("hi")
    await desk.send("hi")
    await desk.stream(0)
    assert after in await desk.look("")
    desk.places[0] = PanelPlace("a")
    assert "10.0.0.7" not in await desk.look("here now")


async def test_a_prompt_that_is_not_the_models_is_not_called_so() -> None:
    lens = read(await desk_elsewhere(messages_only=True).look("hi")).text
    assert "10.0.0.7:8000 gets messages; what its template makes of them cannot be seen from here." in lens
    assert "What this panel's template makes of it" in lens
    assert "What the model would receive" not in lens


SCORES = (ScoredPiece("Hi", (TokenScore(1, "Hi", 0.5, (LikelyToken(1, "Hi", 0.5),)),)),)


@pytest.mark.parametrize(
    ("scores", "words"), [(SCORES, "mean probability 50 %"), ((), "10.0.0.7:8000 did not tell the probabilities")]
)
async def test_probabilities_are_those_that_the_server_told(scores: tuple[ScoredPiece, ...], words: str) -> None:
    desk = desk_elsewhere(pieces=["Hi"], told=scores)
    await desk.send("hi")
    await desk.stream(0)
    own = ProbabilityHandlers(desk.pool)
    views = [view async for view in own.press(desk.request, Showing(), desk.states[0])]
    assert words in read(views[-1]).text
    assert not desk.pool.scoring, "the server is not asked again"


async def follow(desk: Desk, chosen: PanelAdapter) -> dict[str, Any]:
    own = AdapterHandlers(desk.pool.registry, desk.pool)
    values = await own.follow_place("a", desk.places[0], chosen, Choosing(), chosen, PanelAdapter())
    return {name: value for name, value in zip(NAMES, values, strict=True) if value != SKIP}


async def test_the_adapter_menu_rests_while_a_server_answers_and_says_why() -> None:
    desk = desk_elsewhere()
    chosen = PanelAdapter("formal", checked_adapter("a", "formal"))
    painted = await follow(desk, chosen)
    assert not painted["menu"]["interactive"]
    assert painted["menu"]["choices"] == ON_SERVER
    assert painted["chosen"].checked is None
    assert not painted["tools"].visible
    desk.places[0] = PanelPlace("a")
    painted = await follow(desk, chosen)
    assert painted["menu"]["interactive"]
    assert painted["menu"]["value"] == "formal"
    assert painted["menu"]["choices"][0] == ("No adapter", NO_ADAPTER)
    assert set(painted) == {"menu"}
