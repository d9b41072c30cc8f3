"""Where prefixes are kept on disk, and for which model they are valid."""

from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

from tbcluster.cluster.served_model import ServedModel
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.prefix_disk import PrefixDisk
from tbcluster.engine.saved_prefixes import SavedPrefixes

FINGERPRINT_BYTES = 16


def open_prefix_disk(model: ServedModel, caches: CacheBook) -> PrefixDisk | None:
    """The prefixes that earlier runs have saved; None where no folder is given.

    Raises:
        PrefixFolderError: The folder cannot be used, or another coordinator uses it.
    """
    folder = model_folder(model)
    if folder is None:
        return None
    return PrefixDisk(caches, SavedPrefixes(folder, folder.name, model.kv.prefix_disk_bytes))


def model_folder(model: ServedModel) -> Path | None:
    """The folder for this model cut in this way; the list of what is saved is kept there."""
    if model.kv.prefix_folder is None:
        return None
    return model.kv.prefix_folder.expanduser().absolute() / fingerprint(model)


def stage_folders(model: ServedModel) -> list[Path] | None:
    """Where each stage keeps its part of each prefix."""
    folder = model_folder(model)
    if folder is None:
        return None
    return [folder / f"stage-{stage}" for stage in range(len(model.ranges))]


def fingerprint(model: ServedModel) -> str:
    """Of everything that must be equal for a saved KV cache to be valid."""
    ranges = [f"[{layers.start}, {layers.end})" for layers in model.ranges]
    parts = [ranges, model.kv.bits, model.device.backend, version("mlx-lm"), version("mlx")]
    if model.replica:
        # Equal ones could share it, but a folder has one coordinator that writes its list.
        parts.append(model.replica)
    digest = blake2b(repr(parts).encode(), digest_size=FINGERPRINT_BYTES)
    for path in sorted(model.folder.path.iterdir()):
        if path.suffix in {".json", ".safetensors"}:
            # A weight file is not read whole for this: whoever changes it changes its time.
            status = path.stat()
            digest.update(repr((path.name, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()
