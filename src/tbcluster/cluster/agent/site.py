"""What an agent fills into the specs of its workers and errands: what depends on its machine."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tbcluster.demo import MODEL_PATH
from tbcluster.errors import StageError
from tbcluster.wire.control import CurveKeys, StageSpec, WorkerSpec
from tbcluster.wire.errands import CalibrateSpec, FetchSpec, SurveySpec


@dataclass(frozen=True, slots=True)
class Site:
    """This machine, for what runs on it.

    Attributes:
        keys: The node's, for connections of the data plane.
        run_dir: Folder of the workers' sockets, removed when the agent ends.
        models: Where models are looked for by the last part of their name.
        store: Where weights are kept that were fetched.
        certificate, certificate_key: The node's, for copying weights, in PEM.
    """

    keys: CurveKeys
    run_dir: Path
    models: Path | None
    store: Path
    certificate: str
    # No text of this object shows it.
    certificate_key: str = field(repr=False)

    @property
    def tls_files(self) -> tuple[str, str]:
        """Where `prepare` puts certificate and key."""
        return str(self.run_dir / "certificate.pem"), str(self.run_dir / "certificate-key.pem")

    @property
    def folders(self) -> tuple[str, ...]:
        """Where models may lie that need not be fetched."""
        return () if self.models is None else (str(self.models),)

    def prepare(self) -> None:
        """Make the folder of sockets, and what else is in it. Systems clean up their folders of
        temporary files: it may be gone, and its name be known.

        Raises:
            StageError: The folder belongs to another user.
            OSError: It cannot be written.
        """
        self.run_dir.mkdir(mode=0o700, exist_ok=True)
        if self.run_dir.stat().st_uid != os.getuid():
            raise StageError(f"{self.run_dir} belongs to another user: start the agent again")
        for path, text in zip(
            self.tls_files, (self.certificate, self.certificate_key), strict=True
        ):
            _keep(Path(path), text)

    def tidy(self, in_use: Iterable[WorkerSpec]) -> None:
        """A worker is gone: one that was killed has left its socket, and that of the place before
        if it had just been given another one. All go but those of these specs."""
        wanted = {spec.inbound for spec in in_use if isinstance(spec, StageSpec)}
        with suppress(OSError):  # the folder may be gone
            for path in self.run_dir.iterdir():
                if path.is_socket() and f"ipc://{path}" not in wanted:
                    path.unlink(missing_ok=True)

    def place(self, spec: WorkerSpec) -> WorkerSpec:
        """The spec with this machine's part."""
        match spec:
            case StageSpec():
                return msgspec.structs.replace(
                    spec,
                    keys=self.keys,
                    model=find_locally(spec.model, self.models),
                    run_dir=str(self.run_dir),
                )
            case SurveySpec():
                return msgspec.structs.replace(spec, store=str(self.store), folders=self.folders)
            case FetchSpec():
                return msgspec.structs.replace(
                    spec, store=str(self.store), folders=self.folders, tls_files=self.tls_files
                )
            case CalibrateSpec():
                return spec


def find_locally(model: str, models: Path | None) -> str:
    """The folder of a model on this machine: as it is named where that exists, else the one of the
    same last name in `models`; the name itself if there is neither. No name is the bundled
    model's."""
    if not model:
        return str(MODEL_PATH)
    name = Path(model).name
    if models is None or name == ".." or _exists(Path(model)):
        return model
    local = models / name
    return str(local) if _exists(local) else model


def _keep(path: Path, text: str) -> None:
    """Write a file that this user alone can read, unless it is there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
    except OSError:  # a part of it must not pass for all
        path.unlink(missing_ok=True)
        raise


def _exists(path: Path) -> bool:
    try:
        return path.expanduser().exists()
    except (OSError, RuntimeError):  # too long for a path; no home folder
        return False
