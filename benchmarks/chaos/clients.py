"""Clients that ask the same again and again, and know what they have to hear."""

import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile

import httpx

from benchmarks.chaos.ground import Ground
from tbcluster.cluster.parity import TOLERANCE
from tests.doubles.faults.clients import Asked, Piece, StreamBroken, StreamSilent, new_http, pieces

# Without a token for so long, a request hangs.
HUNG_S = 120.0
# What a logprob may differ by where steps are put together in another way. A Mac's GPU computes in
# the checkpoint's own type.
LOGPROB_TOLERANCE = TOLERANCE["half" if sys.platform == "darwin" else "float32"]
# A wait between two tokens that is worth noting.
GAP_S = 0.25
# A coordinator that was killed has to answer again after so long; what it says until then.
COMES_BACK_S = 45.0
ABSENT = (0, 503)
# What a client waits before it asks a server again that is not there.
AGAIN_S = 0.3


@dataclass
class Counts:
    """What all clients have seen."""

    num_answers: int = 0
    num_tokens: int = 0
    num_wrong: int = 0
    num_hung: int = 0
    num_errors: int = 0
    num_sent_again: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Answer:
    """What was heard so far."""

    text: str = ""
    logprobs: list[float] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        """Go on."""
        self.text += piece.text
        self.logprobs += piece.logprobs

    def begins(self, other: "Answer") -> bool:
        """Whether the other one may come of it yet."""
        among = other.logprobs[: len(self.logprobs)]
        return (
            other.text.startswith(self.text)
            and len(among) == len(self.logprobs)
            and all(
                abs(one - meant) <= LOGPROB_TOLERANCE
                for one, meant in zip(self.logprobs, among, strict=True)
            )
        )

    def equals(self, other: "Answer") -> bool:
        """Whether it is the other one, whole."""
        return self.begins(other) and other.begins(self)


@dataclass(frozen=True, slots=True)
class Gap:
    """A client heard nothing between these two times, in the middle of an answer."""

    start: float
    end: float


class Clients:
    """One client for each kind of request.

    Args:
        ground: What they ask.
        num_tokens: Of each answer.
    """

    def __init__(self, ground: Ground, num_tokens: int) -> None:
        self.counts = Counts()
        self.gaps: list[Gap] = []
        # When the coordinator was killed: what breaks then breaks by nature.
        self.kills: list[float] = []
        self._ground = ground
        self._asked = ground.eight(num_tokens)
        self._expected: dict[str, Answer] = {}
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._threads: list[threading.Thread] = []

    def learn(self) -> None:
        """Hear what each answer is where nothing goes wrong; all run at once.

        Raises:
            AssertionError: One of them fails.
        """
        running = [threading.Thread(target=self._learn, args=(asked,)) for asked in self._asked]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        missing = {asked.name for asked in self._asked} - set(self._expected)
        assert not missing, f"the undisturbed run failed: {missing}: {self.counts.problems}"

    def start(self) -> None:
        """Ask, until `stop`."""
        for asked in self._asked:
            thread = threading.Thread(target=self._run, args=(asked,), name=asked.name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Let running answers come to their end, or be noted as hung."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def pause_after(self, started: float, until: float) -> float:
        """Seconds from a fault to the next token of the stream that waited longest for it; 0 if
        none did."""
        with self._lock:
            gaps = [gap for gap in self.gaps if gap.end > started and gap.start < until]
        return max((gap.end - max(started, gap.start) for gap in gaps), default=0.0)

    def _learn(self, asked: Asked) -> None:
        with self._ground.inside(), new_http(self._ground.url) as http:
            answer = Answer()
            try:
                for piece in pieces(http, asked):
                    if piece is not None:
                        answer.add(piece)
            except StreamBroken as broken:
                self._note(f"{asked.name}: {broken}")
                return
            self._expected[asked.name] = answer

    def _run(self, asked: Asked) -> None:
        with self._ground.inside(), new_http(self._ground.url) as http:
            while not self._is_over.is_set():
                self._ask(http, asked)

    def _ask(self, http: httpx.Client, asked: Asked) -> None:
        """One answer, for which the request is sent again when the coordinator was killed."""
        while True:
            started = time.monotonic()
            try:
                self._hear(http, asked)
                return
            except StreamSilent as silent:
                # Whoever was killed has closed its connections: that excuses no silence.
                self._hang(asked, str(silent))
                return
            except StreamBroken as broken:
                if not self._is_excused(started, broken):
                    with self._lock:
                        self.counts.num_errors += 1
                    self._note(f"{asked.name} ended in an error: {broken}")
                    self._is_over.wait(AGAIN_S)
                    return
            with self._lock:
                self.counts.num_sent_again += 1
            self._is_over.wait(AGAIN_S)

    def _hear(self, http: httpx.Client, asked: Asked) -> None:
        expected, heard, last = self._expected[asked.name], Answer(), time.monotonic()
        is_first = True
        for piece in pieces(http, asked):
            now = time.monotonic()
            if piece is None:
                if now - last > HUNG_S:
                    self._hang(asked, f"{len(heard.text)} characters had come")
                    return
                continue
            if not is_first and now - last > GAP_S:
                with self._lock:
                    self.gaps.append(Gap(last, now))
            is_first, last = False, now
            heard.add(piece)
            with self._lock:
                self.counts.num_tokens += 1
            if not heard.begins(expected):
                self._be_wrong(asked, heard)
                return
        if not heard.equals(expected):
            self._be_wrong(asked, heard)
            return
        with self._lock:
            self.counts.num_answers += 1

    def _be_wrong(self, asked: Asked, heard: Answer) -> None:
        with self._lock:
            self.counts.num_wrong += 1
        expected = self._expected[asked.name]
        both = zip(heard.text, expected.text, strict=False)
        at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))
        told, meant = heard.text[at : at + 20], expected.text[at : at + 20]
        token = len(heard.logprobs)
        logprobs = heard.logprobs[-1:], expected.logprobs[token - 1 : token]
        self._note(
            f"{asked.name} is wrong at character {at}: {told!r} instead of {meant!r}; logprob of "
            f"token {token}: {logprobs[0]} instead of {logprobs[1]}"
        )

    def _hang(self, asked: Asked, what: str) -> None:
        with self._lock:
            self.counts.num_hung += 1
        self._note(f"{asked.name} hangs: {what}")

    def _is_excused(self, started: float, broken: StreamBroken) -> bool:
        """Whether the coordinator was killed since, or is on its way back."""
        if any(killed >= started for killed in self.kills):
            return True
        is_absent = broken.status in ABSENT
        return is_absent and any(killed > started - COMES_BACK_S for killed in self.kills)

    def _note(self, problem: str) -> None:
        with self._lock:
            self.counts.problems.append(f"{datetime.now():%H:%M:%S} {problem}")
