"""A request's way through the stages, as data: the JSON of `/traces/{id}`.

Times are whole microseconds since the request came to the server, on the coordinator's clock. No
text of a prompt or an answer is in them.
"""

from typing import Literal

import msgspec

Kind = Literal["prompt", "decode"]


class Visit(msgspec.Struct, frozen=True):
    """One stage's part in a step: first the way there, then perhaps a queue, then the computing.

    Attributes:
        stage: Position in `RequestTrace.stages`.
        wire_us: From the end on the stage before (or from the coordinator) until it was there.
        queue_us: It lay there behind other steps. A step that comes while others are computed does
            not tell when it came: then its way counts as queueing.
        begun_us: When it began to be computed.
        compute_us: How long that took.
    """

    stage: int
    wire_us: int
    queue_us: int
    begun_us: int
    compute_us: int


class StepTrace(msgspec.Struct, frozen=True):
    """One trip through all stages.

    Attributes:
        sent_us, back_us: When it left the coordinator and its result was there.
        num_tokens: Of the prompt's chunk; of a decode step 1 for each sequence in it.
        visits: In their order; models that loop pass a stage more than once.
        return_us: From the last stage back to the coordinator.
        error: Why it failed, if it did.
    """

    step_id: int
    kind: Kind
    sent_us: int
    back_us: int
    num_tokens: int
    visits: tuple[Visit, ...] = ()
    return_us: int = 0
    error: str | None = None

    @property
    def compute_us(self) -> int:
        """Of all stages."""
        return sum(visit.compute_us for visit in self.visits)

    @property
    def wire_us(self) -> int:
        """Of all ways, that back included."""
        return sum(visit.wire_us for visit in self.visits) + self.return_us

    @property
    def queue_us(self) -> int:
        """Behind other steps on all stages."""
        return sum(visit.queue_us for visit in self.visits)


class SequenceTrace(msgspec.Struct, frozen=True):
    """One choice of an answer.

    Attributes:
        submitted_us: When the engine got it.
        started_us: Each time that it was given a cache; more than one where it had to start over.
        first_token_us, ended_us: None until it has come so far.
        outcome: "running", "stop", "length", "cancelled" or "error".
        steps: Those that are still known, oldest first.
        num_lost_steps: Older steps that were forgotten.
    """

    index: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    outcome: str
    submitted_us: int
    started_us: tuple[int, ...] = ()
    first_token_us: int | None = None
    ended_us: int | None = None
    steps: tuple[StepTrace, ...] = ()
    num_lost_steps: int = 0


class TracedStage(msgspec.Struct, frozen=True):
    """A stage that steps went through.

    Attributes:
        clock_error_us: How far its times may be off against the coordinator's clock: nobody can
            tell a slow way there from a slow way back. 0 on the coordinator's own machine.
    """

    index: int
    replica: int
    node: str
    first_layer: int
    last_layer: int
    clock_error_us: int = 0


class RequestSummary(msgspec.Struct, frozen=True):
    """One line of `/traces`.

    Attributes:
        request_id: The answer's `x-request-id` header.
        answer_id: The `id` in the answer's body.
        at: When it came, Unix seconds.
    """

    request_id: str
    answer_id: str
    endpoint: str
    model: str
    at: float
    outcome: str
    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    first_token_us: int | None = None
    ended_us: int | None = None


class RequestTrace(msgspec.Struct, frozen=True):
    """All that is known of a request."""

    request: RequestSummary
    stages: tuple[TracedStage, ...] = ()
    sequences: tuple[SequenceTrace, ...] = ()


_decoder = msgspec.json.Decoder(RequestTrace)
_list_decoder = msgspec.json.Decoder(tuple[RequestSummary, ...])


def decode_trace(content: bytes | str) -> RequestTrace:
    """The trace in a body of `/traces/{id}`.

    Raises:
        ValueError: It is none.
    """
    return _decoder.decode(content)


def decode_summaries(content: bytes | str) -> tuple[RequestSummary, ...]:
    """The requests in a body of `/traces`, newest first.

    Raises:
        ValueError: They are none.
    """
    return _list_decoder.decode(content)
