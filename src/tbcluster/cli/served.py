"""The models of `tbcluster serve`: which there are, and how the cluster of each is made."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
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
from tbcluster.errors import ModelError, ModelNotFoundError
from tbcluster.planner.plan import Plan
from tbcluster.weights.library import held_models
from tbcluster.weights.store import Store

LOOK_AGAIN_S = 5.0


def catalogue_of(
    given: Sequence[str | None],
    folders: Sequence[Path],
    *,
    holds_too: bool = False,
    is_on_rack: bool = False,
) -> Catalogue:
    """What can be served: the models that were named, and those in folders.

    Args:
        holds_too: Whether whole models in the Hugging Face cache and in the store can, too.
        is_on_rack: Whether nodes load them; see `HeldHere`.

    Raises:
        ModelNotFoundError: A folder of models is none.
        ModelError: Two models that were named have one name.
    """
    for folder in folders:
        if not folder.expanduser().is_dir():
            raise ModelNotFoundError(f"--models: there is no folder {folder}")
    named: dict[str, str | None] = {}
    for source in given:
        name = model_name(source)
        if name in named:
            raise ModelError(
                f"{name} is named twice: requests could not tell the two apart; for several copies "
                "of one model there is --replicas"
            )
        named[name] = source
    return Catalogue(
        tuple(Loadable(name, source, _folder_of(source)) for name, source in named.items()),
        tuple(folder.expanduser().absolute() for folder in folders),
        (HeldHere(is_on_rack=is_on_rack),) if holds_too else (),
    )


class HeldHere:
    """The models that are whole on this machine, wherever that is. Looking for them reads the small
    files of all, so that it is done at most every `LOOK_AGAIN_S`. Thread-safe.

    Args:
        is_on_rack: Whether nodes load them, each its own part: that part they may have to look for
            by the model's id. Otherwise they are loaded from where they are: nothing is fetched.
    """

    def __init__(self, *, is_on_rack: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_on_rack = is_on_rack
        self._clock = clock
        self._lock = threading.Lock()
        self._found: tuple[Loadable, ...] = ()
        self._valid_until = -inf

    def __call__(self) -> tuple[Loadable, ...]:
        """All of them."""
        with self._lock:
            if self._clock() >= self._valid_until:
                self._found = tuple(self._look())
                self._valid_until = self._clock() + LOOK_AGAIN_S
            return self._found

    def _look(self) -> Iterator[Loadable]:
        for held in held_models(Store()):
            if held.is_whole:
                source = held.listing.source if self._is_on_rack else held.folder
                yield Loadable(held.listing.model, source, held.folder)


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
        loadable: Loadable,
        *,
        taken_bytes: Mapping[str, int],
        on_plan: Callable[[Plan], None],
    ) -> Cluster:
        """A cluster that is not started."""
        is_first = loadable.source == self.request.model

        def planned(plan: Plan) -> None:
            show_briefly(console, plan)
            on_plan(plan)

        return Cluster(
            loadable.source,
            name=loadable.name,
            kv=self.kv,
            memory_bytes=self.memory_bytes,
            rack=self.rack,
            placed=self.placed if is_first else (),
            layout=self.request.by_hand if is_first else (),
            wishes=self.request.wishes,
            taken_bytes=taken_bytes,
            measures_speed=True,
            describes=False,
            on_plan=planned,
            on_fetch=self.fetch_bars.show,
            on_progress=self.stage_bars.show,
            on_note=say,
        )
