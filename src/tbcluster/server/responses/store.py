"""Responses that later ones may continue: bounded, in memory alone. Pure: no clock, no thread."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

Item = dict[str, Any]

DEFAULT_MAX_BYTES = 64 << 20
DEFAULT_MAX_RESPONSES = 1024
# What Python keeps around the texts: for a turn, and for finding each of its items.
TURN_BYTES = 1024
ITEM_BYTES = 512


class Turn:
    """One response and what was new in its request; what came before is kept by reference.

    Attributes:
        caller: Whose it is; nobody else can reach it.
        response_json: The response as it was answered.
        num_bytes: What the turn takes by itself.
        chain_bytes: What it takes together with all turns before it.
    """

    __slots__ = (
        "_input",
        "caller",
        "chain_bytes",
        "item_ids",
        "num_bytes",
        "num_holders",
        "previous",
        "response_id",
        "response_json",
    )

    def __init__(
        self,
        caller: str,
        response: dict[str, Any],
        items: Iterable[Item],
        previous: "Turn | None" = None,
    ) -> None:
        items = list(items)
        self.caller = caller
        self.response_id: str = response["id"]
        self.item_ids = tuple(item["id"] for item in (*items, *response["output"]))
        # As text they take a fraction of what they take as objects, and exactly what is counted.
        self._input = msgspec.json.encode(items)
        self.response_json = msgspec.json.encode(response)
        self.previous = previous
        self.num_holders = 0
        self.num_bytes = (
            TURN_BYTES
            + ITEM_BYTES * len(self.item_ids)
            + len(self._input)
            + len(self.response_json)
        )
        self.chain_bytes: int = self.num_bytes + (previous.chain_bytes if previous else 0)

    def own_input(self) -> list[Item]:
        """The items that its request added."""
        items: list[Item] = msgspec.json.decode(self._input)
        return items

    def own_items(self) -> list[Item]:
        """The items that its request added, and those of the response."""
        output: list[Item] = msgspec.json.decode(self.response_json)["output"]
        return [*self.own_input(), *output]

    def input(self) -> list[Item]:
        """All items that the response answers, those of the turns before it included."""
        before = [] if self.previous is None else self.previous.conversation()
        return [*before, *self.own_input()]

    def conversation(self) -> list[Item]:
        """All items up to and with the response's own."""
        turns = [self, *self._ancestors()]
        return [item for turn in reversed(turns) for item in turn.own_items()]

    def _ancestors(self) -> "Iterator[Turn]":
        turn = self.previous
        while turn is not None:
            yield turn
            turn = turn.previous


class ResponseStore:
    """Keeps the responses that were used last.

    A response that is dropped or deleted can no longer be asked for; its items stay as long as a
    kept response continues it, and count as long as they stay.

    Attributes:
        num_bytes: What all turns that are kept take.
    """

    def __init__(
        self, max_bytes: int = DEFAULT_MAX_BYTES, max_responses: int = DEFAULT_MAX_RESPONSES
    ) -> None:
        self._max_bytes = max_bytes
        self._max_responses = max_responses
        self._turns: OrderedDict[tuple[str, str], Turn] = OrderedDict()
        self._turn_of_item: dict[tuple[str, str], Turn] = {}
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._turns)

    def put(self, turn: Turn) -> None:
        """Keep a turn, and let the ones go that were not used for longest where there is no room.
        A turn that would not fit by itself, with those before it, is not kept."""
        if turn.chain_bytes > self._max_bytes:
            return
        self._turns[turn.caller, turn.response_id] = turn
        self._hold(turn)
        while self.num_bytes > self._max_bytes or len(self._turns) > self._max_responses:
            _, oldest = self._turns.popitem(last=False)
            self._let_go(oldest)

    def get(self, caller: str, response_id: str) -> Turn | None:
        """The caller's response of this id, if it is kept."""
        turn = self._turns.get((caller, response_id))
        if turn is not None:
            self._turns.move_to_end((caller, response_id))
        return turn

    def turn_of_item(self, caller: str, item_id: str) -> Turn | None:
        """The caller's turn that has an item of this id, if it is kept."""
        return self._turn_of_item.get((caller, item_id))

    def delete(self, caller: str, response_id: str) -> bool:
        """Forget a response; False if there is none."""
        turn = self._turns.pop((caller, response_id), None)
        if turn is not None:
            self._let_go(turn)
        return turn is not None

    def _hold(self, turn: Turn | None) -> None:
        """Count one more holder of a turn; the first one holds the turn before it too."""
        while turn is not None:
            turn.num_holders += 1
            if turn.num_holders > 1:
                return
            self.num_bytes += turn.num_bytes
            self._turn_of_item |= {(turn.caller, item_id): turn for item_id in turn.item_ids}
            turn = turn.previous

    def _let_go(self, turn: Turn | None) -> None:
        """Count one holder less; the last one lets go of the turn before it too."""
        while turn is not None:
            turn.num_holders -= 1
            if turn.num_holders > 0:
                return
            self.num_bytes -= turn.num_bytes
            for item_id in turn.item_ids:
                if self._turn_of_item.get((turn.caller, item_id)) is turn:
                    del self._turn_of_item[turn.caller, item_id]
            turn = turn.previous
