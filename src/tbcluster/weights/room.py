"""Whether a disk has room for what is to be fetched."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tbcluster.checkpoint import Listing, Span, num_bytes
from tbcluster.errors import DiskFullError
from tbcluster.weights.store import Revision

# Left free for whatever else the machine does.
RESERVE_BYTES = 1024**3
_PROBE_BYTES = 4 * 1024**2


def check_room(
    revision: Revision,
    listing: Listing,
    missing: Iterable[Span],
    reserve_bytes: int = RESERVE_BYTES,
) -> None:
    """Before the first byte is fetched; under the revision's lock.

    Raises:
        DiskFullError: The disk has less than what is missing and the reserve.
        OSError: The folder cannot be written.
    """
    missing = tuple(missing)
    has_holes = keeps_holes(revision.own)
    needed = num_bytes(missing) if has_holes else _whole_bytes(revision, listing, missing)
    free = shutil.disk_usage(revision.path).free
    lacking = needed + reserve_bytes - free
    if not needed or lacking <= 0:
        return
    why = (
        ""
        if has_holes
        else " (its filesystem keeps no holes: a file that is needed in part takes its whole size)"
    )
    raise DiskFullError(
        f"{listing.model} needs {_gb(needed)} more on the disk of {revision.path}{why}, which has "
        f"{_gb(free)} free, and {_gb(reserve_bytes)} stay free: make room for {_gb(lacking)} "
        "there, or keep models on another disk with TBCLUSTER_HOME"
    )


def keeps_holes(folder: Path) -> bool:
    """Whether parts of a file that were never written take no room there: exFAT, the usual one of
    external disks, cannot do that."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.truncate(_PROBE_BYTES)
        return os.fstat(probe.fileno()).st_blocks * 512 < _PROBE_BYTES


def _whole_bytes(revision: Revision, listing: Listing, missing: Iterable[Span]) -> int:
    files = {span.file for span in missing}
    return sum(
        file.size
        for file in listing.files
        if file.path in files and revision.find(file.path) is None
    )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
