"""What is kept of what happened."""

from tbcluster.server.live.events import MAX_EVENTS, EventLog
from tbcluster.server.live.view import LiveEvent


def test_the_newest_are_kept_in_order() -> None:
    log = EventLog(clock=lambda: 5.0)
    for number in range(MAX_EVENTS + 3):
        log.add(f"{number}")
    kept = log.newest()
    assert [event.number for event in kept] == list(range(4, MAX_EVENTS + 4))
    assert kept[0] == LiveEvent(4, 5.0, "note", "info", "3")


def test_where_things_are_on_this_machine_is_for_its_own_log() -> None:
    heard: list[LiveEvent] = []
    log = EventLog(heard.append)
    log.add("/Users/anna/Secret Plans/models/toy/config.json cannot be used: see http://a:1/v1/b")
    assert heard[0].text.startswith("/Users/anna/")
    assert "anna" not in log.newest()[0].text
    assert "http://a:1/v1/b" in log.newest()[0].text
