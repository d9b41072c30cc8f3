"""The parity check: what the pipeline computes for a probe against what it should be. Pure."""

from collections.abc import Sequence

from tbcluster.core import SampledToken
from tbcluster.errors import ParityError
from tbcluster.wire.control import Reference

# How far two right computations of the same logprob may lie apart: different chips and different
# shapes of one matmul round differently, in half precision by a few hundredths.
TOLERANCE = {"float32": 1e-3, "half": 0.15}
UNSHARDED = "the unsharded model"
RECOMPUTED = "a prompt of the same tokens"


def compare(
    reference: Reference, sampled: Sequence[SampledToken], tolerance: float, what: str = UNSHARDED
) -> None:
    """Compare token by token, up to the first near-tie that rounding may decide either way.

    Args:
        what: Where the reference comes from, in words.

    Raises:
        ParityError: A token or its probability differs by more than rounding.
    """
    if len(sampled) != len(reference.tokens):
        raise ParityError(
            f"the pipeline gave {len(sampled)} tokens for the probe, not {len(reference.tokens)}"
        )
    for step, token in enumerate(sampled):
        expected = reference.logprobs[step]
        # Holds for the other token of a near-tie too. `not <=` and not `>`: a NaN must fail.
        if token.logprob is None or not abs(token.logprob - expected) <= tolerance:
            raise ParityError(_difference(step, reference, token, what))
        if token.token != reference.tokens[step]:
            if reference.margins[step] <= tolerance:
                return
            raise ParityError(_difference(step, reference, token, what))


def recomputed(sampled: Sequence[SampledToken]) -> Reference:
    """What was computed again from the tokens, to compare the steps with; each token has two
    alternatives beside it, likeliest first.

    Raises:
        ParityError: A stage gave no numbers.
    """
    margins = []
    for token in sampled:
        if token.logprob is None or len(token.top) < 2:
            raise ParityError("parity check failed: the last stage gives no logprobs")
        margins.append(token.top[0][1] - token.top[1][1])
    return Reference(
        tokens=tuple(token.token for token in sampled),
        logprobs=tuple(token.logprob for token in sampled if token.logprob is not None),
        margins=tuple(margins),
    )


def _difference(step: int, reference: Reference, token: SampledToken, what: str) -> str:
    return (
        f"parity check failed at probe token {step + 1}: the pipeline gives token {token.token} "
        f"with logprob {token.logprob}, {what} token {reference.tokens[step]} with "
        f"{reference.logprobs[step]:.6f}. The model is not served: a stage computes something "
        "else. Check the weights on each node, or serve with --stages 1"
    )
