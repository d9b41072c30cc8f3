"""The models of `tbcluster serve`: which there are, and how the cluster of each is made."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tbcluster.cli.fetch_bars import FetchBars
from tbcluster.cli.loading import StageBars, console, say
from tbcluster.cli.plan_view import show_briefly
from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.layout import PlacedRange
from tbcluster.cluster.models.catalogue import Catalogue, Loadable
from tbcluster.cluster.opening import model_name
from tbcluster.cluster.plan_request import PlanRequest
from tbcluster.cluster.rack.rack import Rack
from tbcluster.errors import ModelNotFoundError
from tbcluster.planner.plan import Plan
from tbcluster.weights.library import held_models
from tbcluster.weights.store import Store


def catalogue_of(
    given: Sequence[str | None], folders: Sequence[Path], *, holds_too: bool = False
) -> Catalogue:
    """What can be served: the models that were named, and those in folders.

    Args:
        holds_too: Whether whole models in the Hugging Face cache and in the store can, too.

    Raises:
        ModelNotFoundError: A folder of models is none.
    """
    for folder in folders:
        if not folder.expanduser().is_dir():
            raise ModelNotFoundError(f"--models: there is no folder {folder}")
    named = {model_name(source): source for source in given}
    return Catalogue(
        tuple(Loadable(name, source, _folder_of(source)) for name, source in named.items()),
        tuple(folder.expanduser().absolute() for folder in folders),
        (held_here,) if holds_too else (),
    )


def held_here() -> Iterator[Loadable]:
    """The models that are whole on this machine, wherever that is."""
    for held in held_models(Store()):
        if held.is_whole:
            yield Loadable(held.listing.model, held.listing.source, held.folder)


def _folder_of(source: str | None) -> Path | None:
    path = Path(source).expanduser() if source is not None else None
    return path if path is not None and path.is_dir() else None


@dataclass(frozen=True, slots=True)
class ClusterMaker:
    """Makes clusters, all with the same options; what was placed by hand is the first model's.

    Attributes:
        request: Of the first model.
        memory_bytes: The most that models may take on this machine; None for what MLX says.
    """

    request: PlanRequest
    kv: KvOptions
    rack: Rack | None
    placed: Sequence[PlacedRange]
    stage_bars: StageBars
    fetch_bars: FetchBars
    memory_bytes: int | None = None

    def __call__(
        self,
        source: str | Path | None,
        *,
        taken_bytes: Mapping[str, int],
        on_plan: Callable[[Plan], None],
    ) -> Cluster:
        """A cluster that is not started."""
        is_first = source == self.request.model

        def planned(plan: Plan) -> None:
            show_briefly(console, plan)
            on_plan(plan)

        return Cluster(
            source,
            kv=self.kv,
            memory_bytes=self.memory_bytes,
            rack=self.rack,
            placed=self.placed if is_first else (),
            layout=self.request.by_hand if is_first else (),
            wishes=self.request.wishes,
            taken_bytes=taken_bytes,
            describes=False,
            on_plan=planned,
            on_fetch=self.fetch_bars.show,
            on_progress=self.stage_bars.show,
            on_note=say,
        )
