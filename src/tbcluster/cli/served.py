"""The models of `tbcluster serve`: which there are, and how the cluster of each is made."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from tbcluster.cli.fetch_bars import FetchBars
from tbcluster.cli.loading import StageBars, console, say
from tbcluster.cli.plan_view import show_briefly
from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.layout import Layout, PlacedRange
from tbcluster.cluster.models.catalogue import Catalogue, Loadable
from tbcluster.cluster.opening import model_name
from tbcluster.cluster.plan_request import PlanRequest
from tbcluster.cluster.rack.rack import Rack
from tbcluster.cluster.saved_preparation import SavedPreparation
from tbcluster.cluster.trust.folder import TrustFolder
from tbcluster.cluster.trust.members import MemberFile
from tbcluster.errors import FetchError, ModelError, ModelNotFoundError, UnknownNodeError
from tbcluster.planner.plan import Plan
from tbcluster.weights.hub import Hub
from tbcluster.weights.library import held_models
from tbcluster.weights.store import Store

LOOK_AGAIN_S = 5.0
_REPOSITORY_ID = re.compile(r"[\w.-]+/[\w.-]+")


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
        ModelNotFoundError: A folder of models is none, or a model can be found nowhere.
        ModelError: Two models that were named have one name.
    """
    for folder in folders:
        if not folder.expanduser().is_dir():
            raise ModelNotFoundError(f"--models: there is no folder {folder}")
    listed = Catalogue(
        (),
        tuple(folder.expanduser().absolute() for folder in folders),
        (HeldHere(is_on_rack=is_on_rack),) if holds_too else (),
    )
    named: dict[str, Loadable] = {}
    for source in given:
        loadable = _named(source, listed)
        if loadable.name in named:
            raise ModelError(
                f"{loadable.name} is named twice: requests could not tell the two apart; for "
                "several copies of one model there is --replicas"
            )
        named[loadable.name] = loadable
    return replace(listed, given=tuple(named.values()))


def _named(source: str | None, listed: Catalogue) -> Loadable:
    """The model that was named: a folder, one of the listed ones, or a Hugging Face id.

    Raises:
        ModelNotFoundError: It can be none of them.
    """
    if source is None or os.path.exists(os.path.expanduser(source)):
        return Loadable(model_name(source), source, _folder_of(source))
    found = listed.find(source)
    if found is not None:
        return found
    if source.startswith((".", "/", "~")) or not _REPOSITORY_ID.fullmatch(source):
        others = ", ".join(listed.all())
        among = f", none of its name among the models here ({others})" if others else ""
        raise ModelNotFoundError(
            f"no folder {source!r}{among}, and it is no Hugging Face id of the form owner/name"
        )
    return Loadable(source, source)


def check_hub(later: Sequence[Loadable]) -> None:
    """Look whether the hub knows models that are loaded later only: a slip is better told at once.
    A hub that cannot be asked says nothing against them.

    Raises:
        ModelNotFoundError: It does not know one.
    """
    for loadable in later:
        if loadable.source is not None and loadable.folder is None:
            with suppress(FetchError):
                Hub().listing(str(loadable.source))


def check_nodes(layout: Layout, folder: TrustFolder) -> None:
    """Look at who is to run what before the rack is brought up.

    Raises:
        UnknownNodeError: There is no such node.
    """
    wanted = [node for stages in layout for node, _ in stages]
    if not wanted:
        return
    names = [member.name for member in MemberFile(folder).nodes() if not member.is_revoked]
    for name in wanted:
        if name not in names:
            raise UnknownNodeError(f"there is no node {name!r}: there are {', '.join(names)}")


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
    """Makes clusters, all with the same options; what a plan file says, or was placed by hand, is
    the first model's alone.

    Attributes:
        first: The name of the first model; None where none was named.
        request: Of the first model.
        others: Of all others.
        kv: Of the first model; others have their own request's bits.
        is_single: Whether there is no other model.
        memory_bytes: The most that models may take on this machine; None for what MLX says.
    """

    first: str | None
    request: PlanRequest
    others: PlanRequest
    kv: KvOptions
    rack: Rack | None
    placed: Sequence[PlacedRange]
    stage_bars: StageBars
    fetch_bars: FetchBars
    memory_bytes: int | None = None
    is_single: bool = False

    def __call__(
        self,
        loadable: Loadable,
        *,
        taken_bytes: Mapping[str, int],
        taken_now: Callable[[], Mapping[str, int]],
        saved: SavedPreparation | None,
        on_plan: Callable[[Plan], None],
        on_replanned: Callable[[], None],
    ) -> Cluster:
        """A cluster that is not started."""
        is_first = loadable.name == self.first
        request = self.request if is_first else self.others

        def planned(plan: Plan) -> None:
            if not self.is_single:
                say(f"{loadable.name}:")
            show_briefly(console, plan)
            on_plan(plan)

        return Cluster(
            loadable.source,
            name=loadable.name,
            kv=replace(self.kv, bits=request.kv_bits),
            memory_bytes=self.memory_bytes,
            rack=self.rack,
            placed=self.placed if is_first else (),
            layout=request.by_hand,
            wishes=request.wishes,
            shortens_context=not is_first,
            taken_bytes=taken_bytes,
            taken_now=taken_now,
            saved=saved,
            measures_speed=True,
            describes=False,
            on_plan=planned,
            on_fetch=self.fetch_bars.show,
            on_progress=self.stage_bars.show,
            on_note=say,
            on_replanned=on_replanned,
        )
