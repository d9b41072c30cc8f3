"""Folders of links, with the names that a loader looks for, to files that are here in part."""

import errno
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from tbcluster.checkpoint import Span, merged
from tbcluster.errors import FetchError

VIEWS = "views"
KEY_LENGTH = 16
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def make_view(parent: Path, name: str, spans: Iterable[Span], files: Mapping[str, Path]) -> Path:
    """A folder called `name`, below `parent`, for whoever needs just these spans, all of which are
    here: the files are the same for all, the folder is not.

    Raises:
        FetchError: The filesystem has no symbolic links.
        OSError: It cannot be made.
    """
    key = sha256(repr(merged(spans)).encode()).hexdigest()[:KEY_LENGTH]
    folder = parent / VIEWS / key / name
    make_private(folder)
    for file, path in files.items():
        link = folder / file
        make_private(link.parent)
        try:
            _point(link, path.absolute())
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise FetchError(
                f"the filesystem of {folder} has no symbolic links (exFAT?), which parts of models "
                "are loaded through: keep models on another disk with TBCLUSTER_HOME"
            ) from error
    return folder


def repoint(views: Path, old: Path, new: Path) -> None:
    """Let the links of all views follow a file that has got another name."""
    for link in views.glob("*/**/*"):
        if link.is_symlink() and os.readlink(link) == str(old.absolute()):
            _point(link, new.absolute())


def _point(link: Path, target: Path) -> None:
    if link.is_symlink() and os.readlink(link) == str(target):
        return
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    os.replace(new, link)


def make_private(folder: Path) -> None:
    """A folder, and those above it that do not exist, for this user alone.

    Raises:
        OSError: It cannot be made.
    """
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
