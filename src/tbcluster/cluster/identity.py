"""Which model exactly: a name for the bytes that are loaded and for what computes with them."""

from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from tbcluster.model.device import Device
from tbcluster.model.source import ModelFolder
from tbcluster.weights.library import ModelSource
from tbcluster.wire.messages import PROTOCOL_VERSION


def identity_of(folder: ModelFolder, weights: ModelSource | None, device: Device) -> str:
    """A hash that differs whenever stages of the model would hold or compute something else,
    whatever the model is called. It does not say which layers, nor how caches are kept.

    Args:
        weights: Where nodes get the model's files from, if they do.
    """
    facts = (
        _content(folder, weights),
        # Quantization is part of it.
        sorted(folder.config.items(), key=lambda item: item[0]),
        str(device.compute_dtype),
        PROTOCOL_VERSION,
        version("mlx"),
        version("mlx-lm"),
    )
    return sha256(repr(facts).encode()).hexdigest()


def _content(folder: ModelFolder, weights: ModelSource | None) -> object:
    if weights is not None and not Path(weights.listing.source).is_absolute():
        # A commit never changes.
        return weights.listing.model, weights.listing.revision
    path = folder.path.resolve()
    files = sorted(path.glob("*.safetensors"))
    # Weights of the same sizes may be written over one another.
    sizes = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return str(path), sizes
