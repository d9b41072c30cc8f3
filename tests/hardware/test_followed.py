"""What a file holds, as it changes."""

import threading

import pytest

from tbcluster.errors import TrustError
from tbcluster.hardware.followed import RELOAD_S, Followed


class Source:
    """A file's stand-in: its content, or what reading it raises."""

    def __init__(self) -> None:
        self.content: str | TrustError = "one"
        self.edition = 0
        self.num_loads = 0
        self.now = 0.0

    def load(self) -> str:
        self.num_loads += 1
        if isinstance(self.content, TrustError):
            raise self.content
        return self.content

    def change(self, content: str | TrustError) -> None:
        self.content = content
        self.edition += 1

    def followed(self) -> Followed[str]:
        return Followed(self.load, lambda: (self.edition,), "the old ones", lambda: self.now)


def test_a_change_is_seen_a_second_later() -> None:
    source = Source()
    followed = source.followed()
    source.change("two")
    assert followed.now() == "one"
    source.now += RELOAD_S
    assert followed.now() == "two"
    source.now += RELOAD_S
    assert followed.now() == "two"
    assert source.num_loads == 2


def test_what_cannot_be_read_leaves_what_was_there(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    followed = source.followed()
    source.change(TrustError("broken"))
    for _ in range(3):
        source.now += RELOAD_S
        assert followed.now() == "one"
    assert caplog.text.count("broken; the old ones stay valid") == 1
    source.change("two")
    source.now += RELOAD_S
    assert followed.now() == "two"


def test_at_first_it_has_to_be_there() -> None:
    source = Source()
    source.change(TrustError("broken"))
    with pytest.raises(TrustError, match="broken"):
        source.followed()


def test_a_change_while_it_is_read_is_seen_later() -> None:
    source = Source()
    read = source.load

    def load_slowly() -> str:
        content = read()
        if source.num_loads == 1:
            source.change("two")
        return content

    followed = Followed(load_slowly, lambda: (source.edition,), "", lambda: source.now)
    assert followed.now() == "one"
    source.now += RELOAD_S
    assert followed.now() == "two"


def test_one_thread_reads_and_the_others_wait() -> None:
    source = Source()
    followed = source.followed()
    source.change("two")
    source.now += RELOAD_S
    seen: list[str] = []
    threads = [threading.Thread(target=lambda: seen.append(followed.now())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["two"] * 8
    assert source.num_loads == 2
