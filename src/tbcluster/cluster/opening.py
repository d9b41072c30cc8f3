"""A model before any of it is loaded: found, looked at, and planned.

What a cluster does first and the commands that only plan do alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from tbcluster.cluster.embedding_requests import model_pooling
from tbcluster.cluster.identity import identity_of
from tbcluster.cluster.layout import Layout
from tbcluster.core import Pooling
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import DoesNotFitError
from tbcluster.model.device import Device, current_device
from tbcluster.model.facts import InspectedModel, ModelFacts
from tbcluster.model.profiling import profile_of
from tbcluster.model.source import ModelFolder, check_folder, find_model, local_path
from tbcluster.planner.nodes import PlanRack
from tbcluster.planner.plan import Plan, Wishes
from tbcluster.planner.planning import make_plan, plan_by_hand
from tbcluster.planner.profile import ModelProfile
from tbcluster.weights.library import ModelSource, open_model_source
from tbcluster.weights.store import Store

DEMO_MODEL_NAME = "tbcluster-demo"
# On one machine, unless the user says otherwise.
DEFAULT_NUM_STAGES = 2
# Its name in plans where there is but one.
THIS_MACHINE = "this machine"


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model that was found, checked, traced and profiled; no weights were read.

    Attributes:
        name: What clients call it.
        weights: Where nodes get its files from; None on one machine, and for the bundled model,
            which every node has.
        notes: Lines that a user should see.
        pooling: How embeddings are made unless a request says otherwise.
        identity: See `identity_of`.
    """

    name: str
    weights: ModelSource | None
    folder: ModelFolder
    device: Device
    inspected: InspectedModel
    profile: ModelProfile
    notes: tuple[str, ...]
    pooling: Pooling
    identity: str

    @property
    def facts(self) -> ModelFacts:
        """What the coordinator must know of it."""
        return self.inspected.facts

    @property
    def revision(self) -> str:
        """The commit, of a model of the hub on a rack; else empty."""
        listing = self.weights.listing if self.weights is not None else None
        return "" if listing is None or Path(listing.source).is_absolute() else listing.revision


def open_model(
    source: str | Path | None,
    kv_bits: int | None = None,
    *,
    name: str | None = None,
    is_on_rack: bool = False,
    device: Device | None = None,
    revision: str = "",
) -> OpenedModel:
    """Find and look at a model.

    Args:
        source: A folder, a Hugging Face id, or None for the bundled model.
        name: What clients call it; None for what its source is called.
        is_on_rack: Whether its nodes fetch what they need: of a Hugging Face id that is not here
            only the small files and the weights' headers are fetched. Otherwise all of it is.
        device: What it shall run on; None for this machine's.
        revision: On a rack, a commit that is served if it is here, without asking the hub.

    Raises:
        ModelError: It cannot be found, read or run.
        FetchError: Its files cannot be listed or fetched.
    """
    weights = None
    if is_on_rack and source is not None:
        weights = open_model_source(str(source), Store(), revision=revision)
    folder = check_folder(weights.folder) if weights is not None else _found(source)
    device = device or current_device()
    inspected = InspectedModel(folder, device)
    name = name or model_name(source)
    pooling, pooling_note = model_pooling(folder.pooling_config)
    notes = [device.note, *_model_notes(name, inspected.facts, pooling_note)]
    return OpenedModel(
        name=name,
        weights=weights,
        folder=folder,
        device=device,
        inspected=inspected,
        profile=profile_of(inspected, name, kv_bits),
        notes=tuple(note for note in notes if note is not None),
        pooling=pooling,
        identity=identity_of(folder, weights, device),
    )


def plan_model(opened: OpenedModel, rack: PlanRack, wishes: Wishes, by_hand: Layout = ()) -> Plan:
    """Which node runs which layers.

    Args:
        by_hand: Who runs what, where a person says so; what it takes and how fast it is are
            predicted all the same.

    Raises:
        PlanError: It cannot be cut or placed as asked.
        DoesNotFitError: There is too little memory.
    """
    if by_hand:
        return plan_by_hand(opened.profile, rack, wishes, [list(stages) for stages in by_hand])
    if opened.facts.uncuttable_because is not None:
        wishes = replace(wishes, stages=None)  # there is but one way
    return make_plan(opened.profile, rack, wishes)


def plan_here(opened: OpenedModel, rack: PlanRack, wishes: Wishes, by_hand: Layout = ()) -> Plan:
    """The plan for one machine: two stages unless more or fewer are wished for, or two do not fit.

    Args:
        rack: This machine alone.

    Raises:
        PlanError, DoesNotFitError: See `plan_model`.
    """
    if by_hand or wishes.stages is not None:
        return plan_model(opened, rack, wishes, by_hand)
    usual = min(DEFAULT_NUM_STAGES, len(opened.facts.legal_cuts) + 1)
    try:
        return plan_model(opened, rack, replace(wishes, stages=usual))
    except DoesNotFitError:
        # Each stage takes some memory beside its layers.
        return plan_model(opened, rack, replace(wishes, stages=1))


def model_name(source: str | Path | None) -> str:
    """The name clients call the model by: a Hugging Face id as it is, a folder's own name."""
    if source is None:
        return DEMO_MODEL_NAME
    path = local_path(str(source))
    return path.resolve().name if path is not None else str(source)


def _found(source: str | Path | None) -> ModelFolder:
    return find_model(str(source or MODEL_PATH))


def _model_notes(name: str, facts: ModelFacts, pooling_note: str | None) -> list[str]:
    notes = []
    if facts.uncuttable_because is not None:
        notes.append(f"{name} is served unsplit: {facts.uncuttable_because}")
    if pooling_note is not None:
        notes.append(f"{name}: {pooling_note}")
    return notes
