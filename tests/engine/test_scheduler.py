"""The scheduler against a model of it, driven by random arrivals, results and removals."""

from collections import deque
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tbcluster.core import MicroBatch, Request, TokenId
from tbcluster.engine.detokenizer import TextStream
from tbcluster.engine.scheduler import Scheduler
from tbcluster.engine.sequence import Sequence
from tests.doubles.text_double import CharacterDetokenizer

UNLIMITED = 1 << 30


def new_sequence(cache_id: int, prompt_length: int) -> Sequence:
    # Equal requests on purpose: a scheduler that tells sequences apart by content would fail.
    request = Request("same", tuple(range(prompt_length)), max_tokens=1)
    text = TextStream(CharacterDetokenizer(), ())
    return Sequence(request, cache_id, lambda _: None, text, started_at=0.0)


@dataclass
class Expected:
    """What the outside knows of a sequence."""

    sequence: Sequence
    known: list[TokenId]
    num_prompt: int
    num_sent: int = 0
    num_in_flight: int = 0
    # Which others had their turn since this one became ready.
    overtaken_by: set[int] = field(default_factory=set)


class Driver:
    """Does what the engine does with a scheduler and checks every micro-batch that comes out."""

    def __init__(self, max_in_flight: int, chunk_tokens: int, max_per_sequence: int) -> None:
        self.scheduler = Scheduler(max_in_flight, chunk_tokens, max_per_sequence)
        self.max_in_flight = max_in_flight
        self.chunk_tokens = chunk_tokens
        self.max_per_sequence = max_per_sequence
        self.sequences: dict[int, Expected] = {}
        self.in_flight: deque[MicroBatch] = deque()
        self.num_added = 0

    def add(self, prompt_length: int) -> None:
        sequence = new_sequence(self.num_added, prompt_length)
        self.scheduler.add(sequence)
        self.sequences[self.num_added] = Expected(sequence, list(sequence.tokens), prompt_length)
        self.num_added += 1

    def remove(self, index: int) -> None:
        if self.sequences:
            cache_id = sorted(self.sequences)[index % len(self.sequences)]
            self.scheduler.remove(self.sequences.pop(cache_id).sequence)

    def is_ready(self, expected: Expected) -> bool:
        has_token = expected.num_sent < len(expected.known)
        return has_token and expected.num_in_flight < self.max_per_sequence

    def schedule(self) -> bool:
        ready = {i for i, expected in self.sequences.items() if self.is_ready(expected)}
        micro_batch = self.scheduler.schedule()
        if micro_batch is None:
            assert not ready or len(self.in_flight) == self.max_in_flight
            return False
        self.in_flight.append(micro_batch)
        assert len(self.in_flight) <= self.max_in_flight
        assert micro_batch.cache_id in ready
        self.check_fairness(micro_batch.cache_id, ready)
        self.check_tokens(micro_batch, self.sequences[micro_batch.cache_id])
        return True

    def check_fairness(self, chosen: int, ready: set[int]) -> None:
        for cache_id, expected in self.sequences.items():
            if cache_id == chosen or cache_id not in ready:
                expected.overtaken_by.clear()
            else:
                assert chosen not in expected.overtaken_by, f"{cache_id} waits for two rounds"
                expected.overtaken_by.add(chosen)

    def check_tokens(self, micro_batch: MicroBatch, expected: Expected) -> None:
        end = expected.num_sent + len(micro_batch.tokens)
        assert list(micro_batch.tokens) == expected.known[expected.num_sent : end]
        assert 1 <= len(micro_batch.tokens) <= self.chunk_tokens
        if micro_batch.sample is None:
            assert end < expected.num_prompt
        else:
            assert len(micro_batch.tokens) == 1
            assert micro_batch.sample.position == end == len(expected.known)
        expected.num_sent = end
        expected.num_in_flight += 1
        assert expected.num_in_flight <= self.max_per_sequence

    def complete(self, *, may_sample: bool = True) -> None:
        if not self.in_flight:
            return
        micro_batch = self.in_flight.popleft()
        expected = self.sequences.get(micro_batch.cache_id)
        self.scheduler.completed(expected.sequence if expected else None)
        if expected is None:
            return
        expected.num_in_flight -= 1
        if micro_batch.sample is not None and may_sample:
            token = 1000 + len(expected.known)
            expected.known.append(token)
            expected.sequence.tokens.append(token)

    def drain(self) -> None:
        """No new tokens from here: everything that is known must get through."""
        while self.schedule() or self.in_flight:
            if len(self.in_flight) == self.max_in_flight or not self.schedule():
                self.complete(may_sample=False)
        for expected in self.sequences.values():
            assert expected.num_sent == len(expected.known)
            assert expected.num_in_flight == expected.sequence.num_in_flight == 0


actions = st.lists(
    st.tuples(st.just("add"), st.integers(1, 20))
    | st.tuples(st.just("remove"), st.integers(0, 9))
    | st.tuples(st.sampled_from(["schedule", "complete", "schedule", "complete"]), st.just(0)),
    max_size=120,
)


@given(
    actions,
    st.integers(1, 6),
    st.integers(1, 8),
    st.sampled_from([1, 2, UNLIMITED]),
)
def test_every_token_goes_once_in_order_and_in_turn(
    script: list[tuple[str, int]], max_in_flight: int, chunk_tokens: int, max_per_sequence: int
) -> None:
    driver = Driver(max_in_flight, chunk_tokens, max_per_sequence)
    for name, number in script:
        match name:
            case "add":
                driver.add(number)
            case "remove":
                driver.remove(number)
            case "schedule":
                driver.schedule()
            case "complete":
                driver.complete()
        assert driver.scheduler.num_sequences == len(driver.sequences)
    driver.drain()


def test_two_sequences_take_turns() -> None:
    driver = Driver(max_in_flight=9, chunk_tokens=2, max_per_sequence=UNLIMITED)
    driver.add(5)
    driver.add(3)
    while driver.schedule():
        pass
    assert [batch.cache_id for batch in driver.in_flight] == [0, 1, 0, 1, 0]


def test_a_looped_model_has_one_micro_batch_of_a_sequence_at_a_time() -> None:
    driver = Driver(max_in_flight=9, chunk_tokens=2, max_per_sequence=1)
    driver.add(5)
    assert driver.schedule()
    assert not driver.schedule()
    driver.complete()
    assert driver.schedule()


def test_what_a_removed_sequence_has_in_flight_still_counts() -> None:
    driver = Driver(max_in_flight=1, chunk_tokens=2, max_per_sequence=UNLIMITED)
    driver.add(5)
    assert driver.schedule()
    driver.remove(0)
    driver.add(1)
    assert not driver.schedule()
    driver.complete()
    assert driver.schedule()


def test_a_reset_forgets_all() -> None:
    scheduler = Scheduler(max_in_flight=1, chunk_tokens=2, max_per_sequence=UNLIMITED)
    scheduler.add(new_sequence(0, 5))
    assert scheduler.schedule() is not None
    scheduler.reset()
    assert scheduler.num_sequences == 0
    assert scheduler.schedule() is None
    scheduler.add(new_sequence(1, 1))
    after = scheduler.schedule()
    assert after is not None
    assert after.cache_id == 1
