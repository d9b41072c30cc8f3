import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps

import msgspec

from tbcluster.server.live.events import MAX_EVENTS, EventLog
from tbcluster.server.live.feed import MAX_WATCHERS, Feed
from tbcluster.server.live.view import LiveEvent, LiveView


def in_a_loop(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    """Run a test in an event loop of its own."""

    @wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


VIEWS = [LiveView(float(at), "0", "ok") for at in range(4)]


def views_in(events: list[bytes]) -> list[LiveView]:
    """What server-sent events hold."""
    return [msgspec.json.decode(event.removeprefix(b"data: "), type=LiveView) for event in events]


@in_a_loop
async def test_all_who_look_get_each_view_once() -> None:
    feed = Feed()

    async def look() -> list[bytes]:
        seen = []
        async for event in feed.watch():
            seen.append(event)
            arrived.release()
        return seen

    arrived = asyncio.Semaphore(0)
    looking = [asyncio.create_task(look()) for _ in range(3)]
    for view in VIEWS:
        await asyncio.to_thread(feed.publish, view)
        for _ in looking:
            await arrived.acquire()
    await asyncio.to_thread(feed.end)
    seen = await asyncio.gather(*looking)
    assert views_in(seen[0]) == VIEWS
    # One for all.
    assert all(mine is theirs for mine, theirs in zip(seen[0], seen[2], strict=True))


@in_a_loop
async def test_who_comes_late_sees_the_newest_view_at_once() -> None:
    feed = Feed()
    for view in VIEWS:
        feed.publish(view)
    watching = feed.watch()
    assert views_in([await anext(watching)]) == VIEWS[-1:]
    await watching.aclose()


@in_a_loop
async def test_places_are_free_again_when_someone_goes() -> None:
    feed = Feed()
    feed.publish(VIEWS[0])
    watching = [feed.watch() for _ in range(MAX_WATCHERS)]
    for one in watching:
        await anext(one)
    assert feed.is_full
    await watching[7].aclose()
    assert not feed.is_full
    for one in watching:
        await one.aclose()


@in_a_loop
async def test_an_end_lets_go_of_who_comes_later_too() -> None:
    feed = Feed()
    feed.end()
    assert [event async for event in feed.watch()] == []


def test_events_are_numbered_and_the_oldest_go() -> None:
    heard: list[LiveEvent] = []
    log = EventLog(heard.append, clock=lambda: 5.0)
    for number in range(MAX_EVENTS + 3):
        log.add(f"event {number}")
    log.add("two is lost", "node_lost", "bad")
    kept = log.newest()
    assert len(kept) == MAX_EVENTS
    assert kept[-1] == LiveEvent(MAX_EVENTS + 4, 5.0, "node_lost", "bad", "two is lost")
    assert len(heard) == MAX_EVENTS + 4
