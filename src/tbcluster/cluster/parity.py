"""The parity check: the pipeline's continuation of a probe against the unsharded model's. Pure."""

from collections.abc import Sequence

from tbcluster.core import SampledToken
from tbcluster.errors import ParityError
from tbcluster.wire.control import Reference

# How far two right computations of the same logprob may lie apart: different chips and different
# shapes of one matmul round differently, in half precision by a few hundredths.
TOLERANCE = {"float32": 1e-3, "half": 0.15}


def compare(reference: Reference, sampled: Sequence[SampledToken], tolerance: float) -> None:
    """Compare token by token, up to the first near-tie that rounding may decide either way.

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
            raise ParityError(_difference(step, reference, token))
        if token.token != reference.tokens[step]:
            if reference.margins[step] <= tolerance:
                return
            raise ParityError(_difference(step, reference, token))


def _difference(step: int, reference: Reference, token: SampledToken) -> str:
    return (
        f"parity check failed at probe token {step + 1}: the pipeline gives token {token.token} "
        f"with logprob {token.logprob}, the unsharded model token {reference.tokens[step]} with "
        f"{reference.logprobs[step]:.6f}. The model is not served: a stage computes something "
        "else. Check the weights on each node, or serve with --stages 1"
    )
