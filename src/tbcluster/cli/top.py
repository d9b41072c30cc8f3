"""`tbcluster top`: a running server's rack, live in a terminal."""

import os
import queue
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from tbcluster.cli.endpoint import Endpoint
from tbcluster.cli.models import DEFAULT_URL, Key, Url
from tbcluster.cli.rack import output
from tbcluster.cli.top_view import SPARK_CELLS, picture
from tbcluster.errors import EndpointError
from tbcluster.server.live.view import LiveView, decode_view

PATH = "/live"
ONCE = "/live?once=true"
# How often the keyboard is looked at.
LOOK_S = 0.1
PAUSES_S = (0.5, 1.0, 2.0, 4.0)


def top(
    url: Url = DEFAULT_URL,
    key: Key = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each view as a line of JSON.")
    ] = False,
) -> None:
    """Show a running rack live: stages, nodes, links, rates, watts, events. q or Ctrl-C ends it."""
    server = Endpoint(url, key)
    if once or not (as_json or sys.stdout.isatty()):
        show_once(server, as_json=as_json)
    elif as_json:
        with ending_quietly():
            for data in server.events(PATH):
                typer.echo(data)
    else:
        with ending_quietly():
            show_live(server)


def show_once(server: Endpoint, *, as_json: bool) -> None:
    """The view of this moment."""
    content = server.text(ONCE)
    if as_json:
        typer.echo(content)
        return
    view, console = viewed(content), output()
    console.print(picture(view, [view.tokens_per_s], console.width))


def show_live(server: Endpoint) -> None:
    """Views as they come, until somebody has had enough."""
    first = viewed(server.text(ONCE))  # what is wrong with the address or key is said at once
    views: queue.SimpleQueue[LiveView | str] = queue.SimpleQueue()
    threading.Thread(target=_follow, args=(server, views), daemon=True).start()
    rates: deque[float] = deque([first.tokens_per_s], SPARK_CELLS)
    view, notice, console = first, "", Console()
    with (
        keyboard() as has_quit,
        Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
    ):
        while True:
            live.update(picture(view, list(rates), console.width, notice), refresh=True)
            news = _next(views, has_quit)
            if news is None:
                return
            if isinstance(news, str):
                notice = news
                continue
            view, notice = news, ""
            rates.append(view.tokens_per_s)


def viewed(content: str) -> LiveView:
    """The view in an answer.

    Raises:
        EndpointError: It is none of this version's.
    """
    try:
        return decode_view(content)
    except ValueError as error:
        raise EndpointError(
            f"the server's view cannot be read ({error}): run the same tbcluster version here"
        ) from error


def _follow(server: Endpoint, views: "queue.SimpleQueue[LiveView | str]") -> None:
    """Hand on what comes; when the server is gone, say so and try again."""
    num_failures = 0
    while True:
        try:
            for data in server.events(PATH):
                views.put(viewed(data))
                num_failures = 0
            reason = "the server has ended the stream"
        except EndpointError as error:
            reason = str(error)
        views.put(f"{reason}; what is shown is old")
        time.sleep(PAUSES_S[min(num_failures, len(PAUSES_S) - 1)])
        num_failures += 1


def _next(
    views: "queue.SimpleQueue[LiveView | str]", has_quit: "threading.Event"
) -> LiveView | str | None:
    """What comes next; None where somebody has pressed q."""
    while not has_quit.is_set():
        try:
            return views.get(timeout=LOOK_S)
        except queue.Empty:
            continue
    return None


@contextmanager
def keyboard() -> Iterator[threading.Event]:
    """An event that is set when q is pressed; never, where there is no keyboard."""
    has_quit = threading.Event()
    if not sys.stdin.isatty():
        yield has_quit
        return
    # Not on every system that Python runs on.
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    has_ended = threading.Event()

    def listen() -> None:
        while not has_ended.is_set():
            ready, _, _ = select.select([descriptor], [], [], LOOK_S)
            if not ready:
                continue
            # Unbuffered: keys that come together must all be seen.
            pressed = os.read(descriptor, 64)
            if not pressed or b"q" in pressed.lower():  # nothing: the terminal has gone
                has_quit.set()
                return

    tty.setcbreak(descriptor)
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield has_quit
    finally:
        has_ended.set()
        thread.join()
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def ending_quietly() -> Iterator[None]:
    """Ctrl-C is how one ends it, and a reader who has seen enough closes the pipe."""
    try:
        yield
    except (KeyboardInterrupt, BrokenPipeError):
        raise typer.Exit(0) from None
