"""How `tbcluster serve` ends: for good, or to begin anew with the weights where they are."""

import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from tbcluster.cli.entry import INTERRUPTED
from tbcluster.cli.loading import say
from tbcluster.cluster.desired import DesiredModels
from tbcluster.errors import TbclusterError

if TYPE_CHECKING:
    from tbcluster.cluster.models.models import Models
    from tbcluster.cluster.rack.rack import Rack
    from tbcluster.server.serving import Server

# The exit status of a program that a signal ended, as shells count it.
TERMINATED = 128 + signal.SIGTERM
HUNG_UP = 128 + signal.SIGHUP


class Restart:
    """Whether the server shall begin anew in this process, which a service manager, or a person,
    asks for with SIGHUP. Where it was started from a terminal the signal says that this is gone:
    then it ends for good.

    Attributes:
        is_asked: Whether it shall.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._is_serving = False
        # While a rack could be left: wakes the thread that does so. Of all that wakes a thread only
        # this may be used where a signal has interrupted it.
        self._leave: queue.SimpleQueue[None] | None = None

    def follow(self, server: "Server") -> None:
        """Let the signal end what the main thread does; requests that run may finish."""

        def begin_anew(number: int, frame: FrameType | None) -> None:
            self.is_asked = True
            server.should_exit = True
            if self._is_serving:
                return
            if self._leave is None:
                sys.exit(HUNG_UP)
            # What is being loaded then fails, and ends no worker, as its own end would.
            self._leave.put(None)

        signal.signal(signal.SIGHUP, begin_anew)

    def wait(self, server: "Server") -> None:
        """Serve until the server ends."""
        self._is_serving = True
        server.wait()

    @contextmanager
    def keeping_workers(self, rack: "Rack | None", desired: DesiredModels | None) -> Iterator[None]:
        """The nodes are left before anything is closed that would end their workers, and what is
        noted of the models stays."""
        if rack is None:
            yield
            return
        leave: queue.SimpleQueue[None] = queue.SimpleQueue()

        def follow() -> None:
            leave.get()
            if self.is_asked:
                if desired is not None:
                    desired.seal()
                rack.close(keeps_workers=True)

        thread = threading.Thread(target=follow, name="leaving", daemon=True)
        thread.start()
        self._leave = leave
        try:
            yield
        finally:
            leave.put(None)
            thread.join()

    @contextmanager
    def beginning_anew(self) -> Iterator[None]:
        """Once all is closed, run the same command in place of this one: it may be another version
        by now."""
        try:
            yield
        except (SystemExit, TbclusterError):
            if not self.is_asked:
                raise
        if self.is_asked:
            self.begin_anew()

    @staticmethod
    def begin_anew() -> NoReturn:
        """Run the command."""
        say("beginning anew")
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def end_on_signals(server: "Server") -> Restart:
    """Let Ctrl-C and SIGTERM end what the main thread does, and the server; SIGHUP, too, or it
    begins anew."""
    restart = Restart()

    def end(number: int, frame: FrameType | None) -> NoReturn:
        restart.is_asked = False
        # Whoever has asked for both means this one.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # Libraries may swallow what is raised in them; the server does not forget.
        server.handle_exit(number, frame)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return restart  # by nohup
    if sys.stdin is not None and sys.stdin.isatty():
        signal.signal(signal.SIGHUP, end)
    else:
        restart.follow(server)
    return restart


@contextmanager
def forgetting(desired: DesiredModels | None, restart: Restart) -> Iterator[None]:
    """An end on purpose is no crash: who starts the server then says anew what it shall serve."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if desired is not None and not restart.is_asked:
            desired.clear()
        raise


@contextmanager
def cutting_off(served: "Models", restart: Restart | None = None) -> Iterator[None]:
    """A download that another thread waits for is not ended by Ctrl-C, and Python waits for threads
    before it exits: a server that was told to end does not."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as ending:
        if served.is_stuck:
            if restart is not None and restart.is_asked:
                restart.begin_anew()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED if isinstance(ending, KeyboardInterrupt) else TERMINATED)
        raise
