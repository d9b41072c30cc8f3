"""A model before any of it is loaded: found, looked at, and planned.

What a cluster does first and the commands that only plan do alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tbcluster.cluster.embedding_requests import model_pooling
from tbcluster.cluster.identity import identity_of
from tbcluster.cluster.layout import Layout
from tbcluster.core import Pooling
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import DoesNotFitError, FetchError, ModelNotFoundError
from tbcluster.model.config_model import open_config
from tbcluster.model.device import Device, current_device
from tbcluster.model.facts import InspectedModel, ModelFacts
from tbcluster.model.known_models import known_config, near_names
from tbcluster.model.packing import UNPACKED_BITS
from tbcluster.model.profiling import profile_of
from tbcluster.model.source import (
    ModelFolder,
    check_config,
    check_folder,
    find_model,
    local_path,
)
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
# Of models that are known by name, for whoever names one that is not.
EXAMPLES = ("DeepSeek-R1", "Qwen3-8B", "Llama-3.3-70B-Instruct")


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model that was found, checked, traced and profiled; no weights were read.

    Attributes:
        name: What clients call it.
        weights: Where nodes get its files from; None on one machine, and for the bundled model,
            which every node has.
        notes: Lines that a user should see.
        pooling: How embeddings are made unless a request says otherwise.
        identity: See `identity_of`; empty where there are no weights.
        unservable_because: Why there are no weights to serve it with: one sentence; empty where
            there are.
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
    unservable_because: str = ""

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
    return OpenedModel(
        name=name,
        weights=weights,
        folder=folder,
        device=device,
        inspected=inspected,
        profile=profile_of(inspected, name, kv_bits),
        notes=_notes(name, device, inspected.facts, pooling_note),
        pooling=pooling,
        identity=identity_of(folder, weights, device),
    )


def model_to_plan(
    source: str | Path | None,
    bits: int | None = None,
    kv_bits: int | None = None,
    *,
    device: Device | None = None,
) -> OpenedModel:
    """Find and look at a model that need not be there: nothing is loaded, and where its config is
    all there is of it, or it is to be packed otherwise, its config is enough.

    Args:
        source: A folder, with or without weights, a config.json, a Hugging Face id, the name of a
            shipped config (`known_models`), or None for the bundled model. Of an id the headers
            are fetched; if the hub cannot be asked, the shipped config is used if there is one.
        bits: Plan as if its weights had so many, 16 for unpacked ones; None for what they have.
        device: What it shall run on; None for this machine's.

    Raises:
        ModelError: It cannot be found, read, run or packed so.
        FetchError: Its files cannot be listed or fetched, and its config is not known.
    """
    device = device or current_device()
    text = None if source is None else str(source)
    alone = _without_weights(text) if text is not None else None
    if alone is not None:
        return _from_config(alone, _config_name(text, alone), bits, kv_bits, device)
    try:
        if bits is None:
            return open_model(source, kv_bits, is_on_rack=True, device=device)
        return _from_config(_with_weights(text), model_name(source), bits, kv_bits, device)
    except (FetchError, ModelNotFoundError) as error:
        if text is None or text.startswith((".", "/", "~")) or local_path(text) is not None:
            raise
        known = known_config(text) if isinstance(error, FetchError) else None
        if known is None:
            raise type(error)(f"{error}{_near(text)}") from error
        opened = _from_config(_shipped(*known), known[1], bits, kv_bits, device)
        return replace(opened, notes=(*opened.notes, f"its files were not looked at: {error}"))


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


def _config_name(source: str | None, folder: ModelFolder) -> str:
    """A shipped config's as it is spelled; a folder's own name, of a file that of its folder."""
    if source is None or local_path(source) is None:
        return str(folder.path)
    return folder.path.resolve().name


def _found(source: str | Path | None) -> ModelFolder:
    return find_model(str(source or MODEL_PATH))


def _notes(
    name: str, device: Device, facts: ModelFacts, pooling_note: str | None
) -> tuple[str, ...]:
    notes = [] if device.note is None else [device.note]
    if facts.uncuttable_because is not None:
        notes.append(f"{name} is served unsplit: {facts.uncuttable_because}")
    if pooling_note is not None:
        notes.append(f"{name}: {pooling_note}")
    return tuple(notes)


def _without_weights(source: str) -> ModelFolder | None:
    """The config that is all there is of a model: a config.json, a folder that holds no weights, or
    a shipped one; None for what has weights, or may have on the hub."""
    path = local_path(source)
    if path is not None:
        return check_config(path)
    known = None if "/" in source else known_config(source)
    return _shipped(*known) if known is not None else None


def _shipped(config: dict[str, Any], name: str) -> ModelFolder:
    return ModelFolder(Path(name), config, {})


def _with_weights(source: str | None) -> ModelFolder:
    """The headers of its weights are here, or were fetched."""
    if source is None:
        return check_folder(MODEL_PATH)
    return check_folder(open_model_source(source, Store()).folder)


def _from_config(
    folder: ModelFolder, name: str, bits: int | None, kv_bits: int | None, device: Device
) -> OpenedModel:
    inspected = InspectedModel(folder, device, open_config(folder, device, bits))
    notes = [f"{name}: planned from its config alone"]
    because = f"{name} was planned from its config alone: name a model that has weights"
    if bits is not None:
        packing = "unpacked" if bits == UNPACKED_BITS else f"in {bits} bits"
        notes = [f"{name}: planned as if its weights were {packing}"]
        because = (
            f"{name} {packing} is not there: convert it (`mlx_lm.convert`), and plan for what that "
            "writes"
        )
    return OpenedModel(
        name=name,
        weights=None,
        folder=folder,
        device=device,
        inspected=inspected,
        profile=profile_of(inspected, name, kv_bits),
        notes=(*_notes(name, device, inspected.facts, None), *notes),
        pooling=Pooling.LAST,
        identity="",
        unservable_because=because,
    )


def _near(source: str) -> str:
    names = near_names(source) or EXAMPLES
    return f"; known by name alone are {', '.join(names)} and others"
