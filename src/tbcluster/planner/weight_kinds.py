"""How many bits a weight of each kind takes, scales and biases included. Pure."""

import re

_AFFINE = re.compile(r"(\d+)-bit/(\d+)")
# A scale and a bias of 16 bits for each group of affine quantization.
_GROUP_BITS = 32
_BITS = {
    "float32": 32.0,
    "bfloat16": 16.0,
    "float16": 16.0,
    "mxfp8": 8.25,
    "mxfp4": 4.25,
    "nvfp4": 4.5,
    "ternary": 2.0,
}
# Of a kind that nobody knows.
_UNKNOWN = _BITS["float16"]


def bits_per_weight(kind: str) -> float:
    """Of this kind (`ModelProfile.weight_kind`)."""
    affine = _AFFINE.fullmatch(kind)
    if affine is not None:
        return int(affine[1]) + _GROUP_BITS / int(affine[2])
    return _BITS.get(kind, _UNKNOWN)
