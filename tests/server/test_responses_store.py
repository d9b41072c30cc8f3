"""What is kept of responses, and what makes room."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tbcluster.server.responses.store import ResponseStore, Turn


def turn(
    response_id: str, *, caller: str = "anna", previous: Turn | None = None, text: str = "hello"
) -> Turn:
    """A response with one item in and one out."""
    output = [{"id": f"out-{response_id}", "text": text}]
    response = {"id": response_id, "output": output}
    return Turn(caller, response, [{"id": f"in-{response_id}", "text": text}], previous)


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in items]


def test_a_response_comes_back_as_it_was() -> None:
    store = ResponseStore()
    store.put(turn("r", text="Grüße 🌍"))
    kept = store.get("anna", "r")
    assert kept is not None
    expected = {"id": "r", "output": [{"id": "out-r", "text": "Grüße 🌍"}]}
    assert json.loads(kept.response_json) == expected
    assert kept.own_input() == [{"id": "in-r", "text": "Grüße 🌍"}]
    assert ids(kept.own_items()) == ["in-r", "out-r"]


def test_a_conversation_is_all_turns_in_order() -> None:
    first = turn("1")
    second = turn("2", previous=first)
    third = turn("3", previous=second)
    assert ids(third.input()) == ["in-1", "out-1", "in-2", "out-2", "in-3"]
    assert ids(third.conversation()) == [*ids(third.input()), "out-3"]
    assert ids(first.conversation()) == ["in-1", "out-1"]


def test_another_caller_finds_nothing() -> None:
    store = ResponseStore()
    store.put(turn("r"))
    assert store.get("bert", "r") is None
    assert store.turn_of_item("bert", "in-r") is None
    assert not store.delete("bert", "r")
    assert store.get("anna", "r") is not None


def test_a_chain_takes_as_much_as_its_turns() -> None:
    store = ResponseStore()
    previous = None
    for number in range(200):
        previous = turn(f"{number:03}", previous=previous, text="x" * 1000)
        store.put(previous)
    assert previous is not None
    assert store.num_bytes == 200 * previous.num_bytes == previous.chain_bytes
    assert len(previous.conversation()) == 400


def test_what_was_not_used_for_longest_makes_room() -> None:
    store = ResponseStore(max_responses=2)
    store.put(turn("1"))
    store.put(turn("2"))
    assert store.get("anna", "1") is not None
    store.put(turn("3"))
    assert [store.get("anna", name) is not None for name in "123"] == [True, False, True]


def test_a_dropped_response_stays_what_others_continue() -> None:
    store = ResponseStore(max_responses=1)
    first = turn("1")
    store.put(first)
    store.put(turn("2", previous=first))
    assert store.get("anna", "1") is None
    second = store.get("anna", "2")
    assert second is not None
    assert ids(second.conversation()) == ["in-1", "out-1", "in-2", "out-2"]
    assert store.turn_of_item("anna", "out-1") is first
    assert store.num_bytes == second.chain_bytes
    store.delete("anna", "2")
    assert store.num_bytes == 0
    assert store.turn_of_item("anna", "out-1") is None


def test_what_cannot_fit_drives_nothing_else_out() -> None:
    small = turn("small")
    store = ResponseStore(max_bytes=2 * small.num_bytes)
    store.put(small)
    store.put(turn("big", text="x" * 10_000))
    assert store.get("anna", "big") is None
    assert store.get("anna", "small") is not None


@pytest.mark.parametrize("name", ["in-1", "out-1"])
def test_items_are_found_by_their_ids(name: str) -> None:
    store = ResponseStore()
    first = turn("1")
    store.put(first)
    store.put(turn("2"))
    assert store.turn_of_item("anna", name) is first
    assert store.turn_of_item("anna", "in-3") is None


class Stores(RuleBasedStateMachine):
    """Any order of keeping, asking and deleting: what is kept is counted, and nothing else."""

    MAX_BYTES = 16_000
    MAX_RESPONSES = 5

    def __init__(self) -> None:
        super().__init__()
        self.store = ResponseStore(self.MAX_BYTES, self.MAX_RESPONSES)
        self.made: list[Turn] = []
        # Ids by when they were used, last is newest.
        self.used: list[str] = []

    @rule(size=st.integers(0, 3000))
    def put_new(self, size: int) -> None:
        self._put(None, size)

    @precondition(lambda self: self.made)
    @rule(size=st.integers(0, 3000), data=st.data())
    def put_next(self, size: int, data: st.DataObject) -> None:
        # Any turn, dropped ones too: it may have been dropped while its answer was made.
        self._put(data.draw(st.sampled_from(self.made)), size)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        wanted = data.draw(st.sampled_from(self.made))
        found = self.store.get("anna", wanted.response_id)
        assert (found is wanted) == (wanted.response_id in self.used)
        if found is not None:
            self.used.remove(wanted.response_id)
            self.used.append(wanted.response_id)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.made)).response_id
        assert self.store.delete("anna", name) == (name in self.used)
        if name in self.used:
            self.used.remove(name)

    @invariant()
    def counts_what_can_be_reached(self) -> None:
        assert len(self.store) == len(self.used) <= self.MAX_RESPONSES
        alive = {turn.response_id: turn for turn in self._reachable()}
        assert self.store.num_bytes == sum(turn.num_bytes for turn in alive.values())
        assert self.store.num_bytes <= self.MAX_BYTES
        for turn in self.made:
            is_there = self.store.turn_of_item("anna", f"in-{turn.response_id}") is not None
            assert is_there == (turn.response_id in alive)

    def _put(self, previous: Turn | None, size: int) -> None:
        made = turn(str(len(self.made)), previous=previous, text="x" * size)
        self.made.append(made)
        self.store.put(made)
        if made.chain_bytes > self.MAX_BYTES:
            return
        self.used.append(made.response_id)
        while len(self.used) > len(self.store):
            self.used.pop(0)

    def _reachable(self) -> list[Turn]:
        found = []
        for name in self.used:
            turn: Turn | None = self.made[int(name)]
            while turn is not None:
                found.append(turn)
                turn = turn.previous
        return found


TestStores = Stores.TestCase
