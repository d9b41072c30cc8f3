"""What whoever looks after the stages of a replica hears."""

from dataclasses import dataclass

from tbcluster.engine.examination import Examination
from tbcluster.errors import TbclusterError


@dataclass(frozen=True, slots=True)
class StageExited:
    """A worker ended; `what` says how, for people. `index` is that of its status, `node` where it
    ran."""

    index: int
    what: str
    node: str | None = None

    def __str__(self) -> str:
        return f"stage {self.index} {self.what}"


@dataclass(frozen=True, slots=True)
class PathLost:
    """Messages do not arrive any more; the workers are well."""

    what: str

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class StageBroken:
    """A stage cannot be loaded on its node."""

    error: TbclusterError
    node: str | None = None


@dataclass(frozen=True, slots=True)
class PathImproved:
    """There is a better way than one that is in use."""


@dataclass(frozen=True, slots=True)
class NodesChanged:
    """Nodes came, went, or were drained."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What the stages made of an examination, or why there is nothing."""

    result: Examination | TbclusterError


@dataclass(frozen=True, slots=True)
class ExaminationDue:
    """Somebody wants the stages examined now."""


Loss = StageExited | PathLost
News = Loss | StageBroken | PathImproved | NodesChanged | Examined | ExaminationDue
