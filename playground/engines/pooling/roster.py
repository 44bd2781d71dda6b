"""Who has a place, who is on the way and who is leaving: the pool's one mutable table.

Every change happens under one lock, held for arithmetic alone; loading and closing run in threads of their own, one a
resident. A resident goes loading -> ready -> leaving -> gone, or from loading straight to leaving when it is given up.
From the moment it is leaving its model can be asked for anew and its room can be promised to others; whoever was
promised any of it begins to load only when all who were leaving are gone. A view loads when its base is there, and
leaves with it at the latest. Used by the pool alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from model_registry.spec import ModelSpec
from playground.adapters.facts import CheckedAdapter
from playground.engines.base import Engine
from playground.engines.pooling.residency import Room, make_room, make_room_for_view, make_room_together
from playground.engines.pooling.resident import Resident
from playground.errors import (
    EngineBusyError,
    EngineClosedError,
    EngineError,
    LoadCancelledError,
    PlacementError,
    PlaygroundError,
)
from playground.placement.plan import Placement
from playground.placement.site import Site
from playground.placement.views import View
from playground.types import EngineLabel, LoadProgress

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
        self._residents: dict[EngineLabel, Resident] = {}
        """A base comes before its views."""
        self._leaving: set[Resident] = set()
        self._failures: dict[str, str] = {}
        self._events = itertools.count()
        self._closed = False

    def enter(self, spec: ModelSpec, adapter: CheckedAdapter | None = None, scale: float = 1.0) -> Resident:
        """One user more of a model, or of it with an adapter; what of it is not there begins to load.

        Raises:
            PlacementError, EngineBusyError, EngineClosedError.
        """
        label = EngineLabel(spec.id, None if adapter is None else adapter.use(scale))
        with self._lock:
            self._require_open()
            self._bury()
            if label not in self._residents and adapter is None:
                self._move_in(make_room([spec], self._all(), self._idle(), self._site))
            elif label not in self._residents and adapter is not None:
                self._move_in(make_room_for_view(spec, adapter, scale, self._all(), self._site))
            resident = self._residents[label]
            self._count(resident, 1)
            return resident

    def visit(self, label: EngineLabel) -> Resident | None:
        """As `enter`, where an engine is there; None where there is none, or it is still on its way."""
        with self._lock:
            self._bury()
            resident = self._residents.get(label)
            if resident is None or resident.engine is None:
                return None
            self._count(resident, 1)
            return resident

    def leave(self, resident: Resident) -> None:
        """One user less."""
        with self._lock:
            self._count(resident, -1)
            self._bury()

    def begin(self, specs: Sequence[ModelSpec]) -> None:
        """Models that will be asked together begin to load. Raises EngineClosedError.

        See `make_room_together`; where they do not fit together, each is loaded that can.
        """
        with self._lock:
            self._require_open()
            self._bury()
            newcomers = [spec for spec in specs if EngineLabel(spec.id) not in self._residents]
            room = make_room_together(specs, self._all(), self._site) if newcomers else None
            if room is not None:
                self._move_in(room)
                return
            for spec in newcomers:
                self._begin_or_note(spec, [one for one in self._idle() if one.host or one.spec not in specs])

    def give_up(self, model_id: str) -> None:
        """Ends a load; a model that is there stays."""
        with self._lock:
            resident = self._residents.get(EngineLabel(model_id))
            if resident is not None and not resident.loading.is_done:
                self._dismiss(resident)

    def dismiss(self, model_id: str) -> Sequence[Future[None]]:
        """Sends a model away, and its views; what to wait for until their memory is free.

        Raises:
            EngineBusyError: it has users, or a view has.
        """
        with self._lock:
            self._bury()
            resident = self._residents.get(EngineLabel(model_id))
            if resident is not None and not resident.is_idle:
                raise EngineBusyError(f"{resident.name} {resident.doing}: wait until it is done, or stop it.")
            if resident is not None:
                self._dismiss(resident)
            return [one.gone for one in self._leaving if one.spec.id == model_id]

    def close(self) -> Sequence[Future[None]]:
        """Sends everyone away for good; what to wait for until they are gone."""
        with self._lock:
            self._closed = True
            for resident in self._all():
                self._dismiss(resident)
            return [resident.gone for resident in self._leaving]

    def find(self, model_id: str) -> tuple[Resident | None, str]:
        """The model's own resident, if it has a place, and why its last load failed, if it did."""
        with self._lock:
            self._bury()
            return self._residents.get(EngineLabel(model_id)), self._failures.get(model_id, "")

    def engines(self) -> list[tuple[EngineLabel, Engine]]:
        """Those that are there, views too."""
        with self._lock:
            self._bury()
            return [(label, one.engine) for label, one in self._residents.items() if one.engine is not None]

    # From here on with the lock held.

    def _require_open(self) -> None:
        if self._closed:
            raise EngineClosedError(SHUTTING_DOWN)

    def _all(self) -> list[Resident]:
        return [*self._residents.values()]

    def _idle(self) -> list[Resident]:
        return [resident for resident in self._residents.values() if resident.is_idle]

    def _count(self, resident: Resident, change: int) -> None:
        for one in reversed(resident.in_use):  # the base last, so that its views never were used later
            one.users += change
            one.last_used = next(self._events)

    def _bury(self) -> None:
        """Sends away whose process ended, so that the next request loads them anew."""
        for resident in self._all():
            if resident.label in self._residents and resident.is_dead:
                log.warning("%s ended by itself", resident.tag)
                ended = f"{resident.name} is gone: its process ended. Send again: the model is loaded anew."
                self._dismiss(resident, EngineError(ended))

    def _begin_or_note(self, spec: ModelSpec, idle: Sequence[Resident]) -> None:
        try:
            self._move_in(make_room([spec], self._all(), idle, self._site))
        except PlacementError as error:
            log.warning("%s", error)
            self._failures[spec.id] = str(error)

    def _move_in(self, room: Room) -> None:
        for resident in room.leaving:
            log.info("unloading %s for %s", resident.tag, ", ".join(one.tag for one in room.arriving))
            self._dismiss(resident)
        for resident in room.arriving:
            log.info("%s", resident.placement.reason)
            resident.last_used = next(self._events)
            self._residents[resident.label] = resident
            if resident.host is None:
                self._failures.pop(resident.spec.id, None)
            _in_a_thread(self._load, resident, [one.gone for one in self._leaving])

    def _dismiss(self, resident: Resident, why: BaseException | None = None) -> None:
        """Sends a resident away, and its views; `why` is what those are told who wait for it."""
        if self._residents.get(resident.label) is not resident:
            return  # a view that left with its base
        del self._residents[resident.label]
        self._leaving.add(resident)
        engine, host = resident.engine, resident.host
        if engine is None:
            why = why or self._farewell(resident)
            resident.loading.give_up(why)
        elif host is None or host not in self._leaving:
            _in_a_thread(self._see_off, resident, engine)
        else:  # the engine of its base closes it
            host.gone.add_done_callback(lambda _: self._is_gone(resident))
        self._dismiss_views(resident, why)

    def _dismiss_views(self, base: Resident, why: BaseException | None) -> None:
        for resident in self._all():
            if resident.host is base:
                self._dismiss(resident, why)

    def _farewell(self, resident: Resident) -> PlaygroundError:
        if self._closed:
            return EngineClosedError(SHUTTING_DOWN)
        log.info("giving up loading %s", resident.tag)
        return LoadCancelledError(f"Loading {resident.name} was cancelled: ask again to load it.")

    # From here on in a resident's own thread, without the lock.

    def _load(self, resident: Resident, before: Iterable[Future[None]]) -> None:
        loading = resident.loading
        wait(before)
        try:
            if resident.host is None or resident.view is None:
                engine = self._launch(resident.spec, resident.placement, loading.report, loading.cancelled)
            else:
                engine = _attach(resident, resident.host, resident.view)
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
                del self._residents[resident.label]
                if resident.host is None:
                    self._failures[resident.spec.id] = str(error) if isinstance(error, PlaygroundError) else UNEXPECTED
                resident.loading.arrived.set_exception(error)
                self._dismiss_views(resident, error)
                log.warning("loading %s: %s", resident.tag, error, exc_info=not isinstance(error, PlaygroundError))
        self._is_gone(resident)

    def _see_off(self, resident: Resident, engine: Engine) -> None:
        try:
            asyncio.run(engine.close())
        except Exception:
            log.exception("closing %s", resident.tag)
        log.info("unloaded %s", resident.tag)
        self._is_gone(resident)

    def _is_gone(self, resident: Resident) -> None:
        with self._lock:
            self._leaving.discard(resident)
        resident.gone.set_result(None)


def _attach(resident: Resident, host: Resident, view: View) -> Engine:
    """The view's engine, when its base is there. Raises what ended the load of either."""
    loading = resident.loading
    loading.report(LoadProgress("adapter"))
    wait([host.loading.arrived, loading.arrived], return_when=FIRST_COMPLETED)
    if loading.cancelled.is_set():
        raise LoadCancelledError("It was given up before its base was there.")
    return host.loading.arrived.result().attach(view.adapter, view.scale, resident.placement.kv_tokens)


def _in_a_thread(run: Callable[..., None], resident: Resident, *rest: object) -> None:
    """A daemon, so that a load that cannot be interrupted does not hold up the end of the process."""
    threading.Thread(target=run, args=(resident, *rest), name=f"model-{resident.spec.id}", daemon=True).start()
