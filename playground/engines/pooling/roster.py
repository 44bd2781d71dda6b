"""Who has a place, who is on the way and who is leaving: the pool's one mutable table.

Every change happens under one lock, held for arithmetic alone; loading and closing run in threads of their own, one a
resident. A resident goes loading -> ready -> leaving -> gone, or from loading straight to leaving when it is given up.
From the moment it is leaving its model can be asked for anew and its room can be promised to others; whoever was
promised any of it begins to load only when all who were leaving are gone. Used by the pool alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait

from model_registry.spec import ModelSpec
from playground.engines.base import Engine
from playground.engines.pooling.loading import Loading
from playground.engines.pooling.residency import Resident, Room, loss, make_room
from playground.errors import (
    EngineBusyError,
    EngineClosedError,
    LoadCancelledError,
    PlacementError,
    PlaygroundError,
)
from playground.placement.plan import Placement
from playground.placement.site import Site
from playground.types import LoadProgress

Launch = Callable[[ModelSpec, Placement, Callable[[LoadProgress], None], threading.Event], Engine]
"""Starts an engine and returns it when it serves: model, place, who is told how far it is, whether it was given up.

Raises PlaygroundError; LoadCancelledError soon after the event is set.
"""

SHUTTING_DOWN = "The playground is shutting down: start it again to go on."
UNEXPECTED = "Loading failed unexpectedly: the log has the details."

log = logging.getLogger(__name__)


class Roster:
    """Safe to use from any thread and event loop; no method waits for a load, a close or a network."""

    def __init__(self, site: Site, launch: Launch) -> None:
        self._site = site
        self._launch = launch
        self._lock = threading.Lock()
        self._residents: dict[str, Resident] = {}
        self._leaving: set[Resident] = set()
        self._failures: dict[str, str] = {}
        self._events = itertools.count()
        self._closed = False

    def enter(self, spec: ModelSpec) -> Resident:
        """One user more of a model, which begins to load if it is not there.

        Raises:
            PlacementError, EngineClosedError.
        """
        with self._lock:
            self._require_open()
            if self._present(spec.id) is None:
                self._begin(spec, self._idle())
            resident = self._residents[spec.id]
            resident.users += 1
            resident.last_used = next(self._events)
            return resident

    def leave(self, resident: Resident) -> None:
        """One user less."""
        with self._lock:
            resident.users -= 1
            resident.last_used = next(self._events)
            self._present(resident.spec.id)

    def begin(self, specs: Sequence[ModelSpec]) -> None:
        """Models that will be asked together begin to load. Raises EngineClosedError.

        None of them leaves for another. Where they do not fit beside those of them that are there, or only with worse
        weights, the idle ones of these are placed and loaded anew. Where not even that helps, each is loaded that can.
        """
        with self._lock:
            self._require_open()
            newcomers = [spec for spec in specs if self._present(spec.id) is None]
            if not newcomers:
                return
            others = [one for one in self._idle() if one.spec not in specs]
            fellows = [one for one in self._idle() if one.spec in specs]
            beside = self._room(newcomers, others)
            anew = self._room([*newcomers, *(one.spec for one in fellows)], others) if fellows else None
            standing = [one.placement for one in fellows]
            if anew and (beside is None or loss(anew.placements) < loss([*beside.placements, *standing])):
                self._move_in(anew)
            elif beside:
                self._move_in(beside)
            else:
                for spec in newcomers:
                    self._begin_or_note(spec, [one for one in others if one not in self._leaving])

    def give_up(self, model_id: str) -> None:
        """Ends a load; a model that is there stays."""
        with self._lock:
            resident = self._present(model_id)
            if resident is not None and not resident.loading.is_done:
                self._dismiss(resident)

    def dismiss(self, model_id: str) -> Sequence[Future[None]]:
        """Sends a model away; what to wait for until its memory is free. Raises EngineBusyError while it has users."""
        with self._lock:
            resident = self._present(model_id)
            if resident is not None and not resident.is_idle:
                raise EngineBusyError(f"{resident.spec.name} {resident.doing}: wait until it is done, or stop it.")
            if resident is not None:
                self._dismiss(resident)
            return [one.gone for one in self._leaving if one.spec.id == model_id]

    def close(self) -> Sequence[Future[None]]:
        """Sends everyone away for good; what to wait for until they are gone."""
        with self._lock:
            self._closed = True
            for resident in [*self._residents.values()]:
                self._dismiss(resident)
            return [resident.gone for resident in self._leaving]

    def find(self, model_id: str) -> tuple[Resident | None, str]:
        """The resident, if the model has a place, and why its last load failed, if it did."""
        with self._lock:
            return self._present(model_id), self._failures.get(model_id, "")

    def engines(self) -> list[Engine]:
        """Those that are there."""
        with self._lock:
            present = [self._present(model_id) for model_id in [*self._residents]]
            return [resident.engine for resident in present if resident is not None and resident.engine is not None]

    # From here on with the lock held.

    def _require_open(self) -> None:
        if self._closed:
            raise EngineClosedError(SHUTTING_DOWN)

    def _present(self, model_id: str) -> Resident | None:
        """The model's resident; one whose process ended is sent away, so that the next request loads it anew."""
        resident = self._residents.get(model_id)
        if resident is not None and resident.is_dead:
            log.warning("%s ended by itself", resident.spec.id)
            self._dismiss(resident)
            return None
        return resident

    def _idle(self) -> list[Resident]:
        return [resident for resident in self._residents.values() if resident.is_idle]

    def _begin(self, spec: ModelSpec, idle: Sequence[Resident]) -> None:
        """Makes room, and begins to load. Raises PlacementError."""
        self._move_in(make_room([spec], self._living([spec]), idle, self._site))

    def _begin_or_note(self, spec: ModelSpec, idle: Sequence[Resident]) -> None:
        try:
            self._begin(spec, idle)
        except PlacementError as error:
            log.warning("%s", error)
            self._failures[spec.id] = str(error)

    def _room(self, specs: Sequence[ModelSpec], idle: Sequence[Resident]) -> Room | None:
        """As `make_room`; those of the models that are there already give up their place."""
        try:
            return make_room(specs, self._living(specs), idle, self._site)
        except PlacementError:
            return None

    def _living(self, apart_from: Sequence[ModelSpec]) -> list[Resident]:
        present = [self._present(model_id) for model_id in [*self._residents]]
        return [one for one in present if one is not None and one.spec not in apart_from]

    def _move_in(self, room: Room) -> None:
        moving = [one for one in self._living([]) if room.has(one.spec.id)]
        for resident in [*moving, *room.leaving]:
            log.info("unloading %s for %s", resident.spec.id, ", ".join(p.model_id for p in room.placements))
            self._dismiss(resident)
        for spec, placement in zip(room.specs, room.placements, strict=True):
            self._settle(spec, placement)

    def _settle(self, spec: ModelSpec, placement: Placement) -> None:
        log.info("%s", placement.reason)
        resident = Resident(spec, placement, Loading(spec.id), last_used=next(self._events))
        self._failures.pop(spec.id, None)
        self._residents[spec.id] = resident
        _in_a_thread(self._load, resident, [one.gone for one in self._leaving])

    def _dismiss(self, resident: Resident) -> None:
        del self._residents[resident.spec.id]
        self._leaving.add(resident)
        engine = resident.engine
        if engine is not None:
            _in_a_thread(self._see_off, resident, engine)
        elif self._closed:
            resident.loading.give_up(EngineClosedError(SHUTTING_DOWN))
        else:
            log.info("giving up loading %s", resident.spec.id)
            sentence = f"Loading {resident.spec.name} was cancelled: ask again to load it."
            resident.loading.give_up(LoadCancelledError(sentence))

    # From here on in a resident's own thread, without the lock.

    def _load(self, resident: Resident, before: Iterable[Future[None]]) -> None:
        loading = resident.loading
        wait(before)
        try:
            engine = self._launch(resident.spec, resident.placement, loading.report, loading.cancelled)
        except BaseException as error:
            self._fail(resident, error)
        else:
            self._arrive(resident, engine)

    def _arrive(self, resident: Resident, engine: Engine) -> None:
        with self._lock:
            is_welcome = not resident.loading.cancelled.is_set()
            if is_welcome:
                resident.loading.arrived.set_result(engine)
        if not is_welcome:
            self._see_off(resident, engine)

    def _fail(self, resident: Resident, error: BaseException) -> None:
        with self._lock:
            if not resident.loading.cancelled.is_set():
                del self._residents[resident.spec.id]
                self._failures[resident.spec.id] = str(error) if isinstance(error, PlaygroundError) else UNEXPECTED
                resident.loading.arrived.set_exception(error)
                log.warning("loading %s: %s", resident.spec.id, error, exc_info=not isinstance(error, PlaygroundError))
        self._is_gone(resident)

    def _see_off(self, resident: Resident, engine: Engine) -> None:
        try:
            asyncio.run(engine.close())
        except Exception:
            log.exception("closing %s", resident.spec.id)
        log.info("unloaded %s", resident.spec.id)
        self._is_gone(resident)

    def _is_gone(self, resident: Resident) -> None:
        with self._lock:
            self._leaving.discard(resident)
        resident.gone.set_result(None)


def _in_a_thread(run: Callable[..., None], resident: Resident, *rest: object) -> None:
    """A daemon, so that a load that cannot be interrupted does not hold up the end of the process."""
    threading.Thread(target=run, args=(resident, *rest), name=f"model-{resident.spec.id}", daemon=True).start()
