"""Processes beside the app's: how they are started, heard, told things, and ended.

They are forked from a server process that has imported all that an engine needs; the app's own, which has threads, is
never forked. Called by the composition root (`prepare`, `in_child`) and by `process`. Knows nothing of engines but what
goes through their wire; imports no torch.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar, cast

from playground.engines.processes.wire import News, Order, Wire
from playground.engines.processes.worker import Task, work
from playground.errors import PlaygroundError
from playground.placement.quantising import quantisation_available

ROOT = Path(__file__).parents[3]

EXIT_S = 1.0
"""Seconds that a process gets to end when it has hung up."""

SIGNAL_S = 0.4
"""Seconds that a signal gets to end a process."""

KILLED = 9
"""The signal that nobody can refuse, which the kernel sends when memory runs out."""

UNKNOWN = 255
"""What multiprocessing says of a process whose end it missed."""

T = TypeVar("T")

log = logging.getLogger(__name__)


def prepare() -> None:
    """Begin to import what every engine needs, in the process from which theirs are forked. Returns at once.

    To be called before anything slow, and before there are threads: the working directory changes for a moment.
    """
    context = _context()
    if isinstance(context, ForkServerContext):
        from multiprocessing.forkserver import ensure_running

        # The server finds our modules from its working directory (Python 3.11); an engine starts in the app's.
        with chdir(ROOT), _interrupts_held_back():
            ensure_running()


def preloaded() -> list[str]:
    """Modules that every engine needs, for the server to import once.

    Where bitsandbytes is installed, PEFT is not among them: `adapted.import_peft` says why.
    """
    modules = ["playground.engines.checkpoints.loader", "playground.engines.processes.worker"]
    return modules if quantisation_available() else [*modules, "playground.adapters.views"]


def in_child(function: Callable[..., T], *arguments: object) -> T:
    """What a module's function returns, or raises, in a process that then ends."""
    context = _context()
    ours, theirs = context.Pipe(duplex=False)
    task = (theirs, function, arguments)
    process = context.Process(target=_report, args=task, name=function.__name__, daemon=True)
    try:
        process.start()
        theirs.close()
        value, error = ours.recv()
    except EOFError:
        raise PlaygroundError(f"The process that runs {function.__name__} ended without a word: try again.") from None
    except OSError as reason:
        raise PlaygroundError(f"The process that runs {function.__name__} could not be run: {reason}.") from reason
    finally:
        ours.close()
        theirs.close()
        if process.pid is not None:
            process.terminate()  # it has said all, or nobody waits for it any more
            process.join()
    if error is not None:
        raise error
    return cast(T, value)


def _report(to: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """Runs in the child, which waits for nobody: an app that ends meanwhile leaves nothing behind."""
    try:
        told: tuple[object, Exception | None] = (function(*arguments), None)
    except Exception as error:
        told = (None, error)
    with suppress(BrokenPipeError):
        to.send(told)


class ChildProcess:
    """A process that does `work` on a task, from its start to its end. A thread lives with it, and does the telling."""

    def __init__(self, task: Task, hear: Callable[[list[News]], None], mourn: Callable[[str], None]) -> None:
        """Start it, which may take a while: nothing here waits for that.

        Args:
            task: what it is for.
            hear: told what it says.
            mourn: told, as the last thing, how it ended; "" where there is nothing to say about that.
        """
        self._hear, self._mourn = hear, mourn
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._is_started = self._is_doomed = False
        context = _context()
        ours, theirs = context.Pipe()
        self._wire: Wire[Order, News] = Wire(ours)
        self._process = context.Process(target=work, args=(theirs, task), name=f"engine-{task.spec.id}", daemon=True)
        self._life = threading.Thread(target=self._live, args=[theirs], name=f"life-{task.spec.id}", daemon=True)
        self._life.start()

    def tell(self, order: Order) -> None:
        """From any thread; never waits, however full the pipe is."""
        self._orders.put(order)

    def end(self, patience_s: float) -> None:
        """Wait so long for it to end by itself, then make it; returns within a second of that. May be repeated."""
        self._life.join(patience_s)
        for force in (self._process.terminate, self._process.kill):
            with self._lock:
                self._is_doomed = True
                if self._is_started and self._life.is_alive():
                    force()
            self._life.join(SIGNAL_S)

    def _live(self, theirs: Connection) -> None:
        try:
            self._process.start()
        except Exception as error:  # a machine at its limits, or a server that died: whatever the system says of it
            log.exception("starting %s", self._process.name)
            self._mourn(f"it could not be started, {error}")
            return
        finally:
            theirs.close()
        with self._lock:
            self._is_started = True
            if self._is_doomed:
                self._process.kill()
        threading.Thread(target=self._pass_on, name=f"to-{self._process.name}", daemon=True).start()
        while (news := self._wire.receive()) is not None:
            self._hear(news)
        self._orders.put(None)
        self._mourn(self._bury())

    def _pass_on(self) -> None:
        """Runs in a thread of its own: sending waits while the pipe is full."""
        while (order := self._orders.get()) is not None:
            self._wire.send([order])

    def _bury(self) -> str:
        self._process.join(EXIT_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(EXIT_S)
        code = self._process.exitcode
        if code is None or code in (0, UNKNOWN):
            return ""
        if code > 0:
            return f"exit code {code}"
        return f"killed by signal {-code}" + (", perhaps for lack of memory" if code == -KILLED else "")


def _context() -> ForkServerContext | SpawnContext:
    # macOS has fork servers too, but its system libraries may not be used on the far side of a fork.
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloaded())
    return context


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """What starts meanwhile never sees SIGINT: Ctrl+C reaches the whole group, but the app decides who ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
