"""A stage worker: one compute thread; libzmq's own thread sends and receives.

It loads its layers once, and may take several places among the stages of one plan after the other.
"""

import logging
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import NoReturn

import mlx.core as mx

from tbcluster.errors import StageMemoryError, TbclusterError
from tbcluster.model.device import lacks_memory, peak_memory_bytes, prepare_device
from tbcluster.model.grammar_mask import GrammarMasks, masks_of_model
from tbcluster.model.loading import load_stage
from tbcluster.model.slicing import StageModel
from tbcluster.model.source import find_model
from tbcluster.stage.beats import Work
from tbcluster.stage.cache_store import CacheStore
from tbcluster.stage.executor import StageExecutor
from tbcluster.stage.orders import Orders, Place
from tbcluster.stage.parent import follow_parent, read_spec
from tbcluster.stage.rules_store import RulesStore
from tbcluster.stage.steps import run_steps
from tbcluster.transport.curve import Guard
from tbcluster.transport.zeromq import ZmqReceiver
from tbcluster.wire.control import Bound, Failed, Loading, Ready, Report, StageSpec

Say = Callable[[Report], None]


def main(stdin: RawIOBase, report: Say, work: Work) -> int:
    """What `python -m tbcluster.stage` does once it has met its parent."""
    logging.basicConfig(format="tbcluster stage: %(levelname)s %(message)s", level=logging.WARNING)
    spec = read_spec(stdin, StageSpec)
    orders = Orders(spec, report)
    follow_parent(stdin, Path(spec.run_dir), orders.follow)
    try:
        serve(orders, report, work)
    except (TbclusterError, OSError, RuntimeError, MemoryError) as error:
        report(failure_of(error))
    return 1


def failure_of(error: Exception) -> Failed:
    """What the parent is told of an error that ends this worker."""
    if isinstance(error, StageMemoryError) or not lacks_memory(error):
        return Failed(type(error).__name__, str(error))
    return Failed(StageMemoryError.__name__, f"there is too little memory: {error}")


def serve(orders: Orders, report: Say, work: Work) -> NoReturn:
    """Load the stage and run steps until the process is ended."""
    device = prepare_device()
    place = orders.place
    receiver = open_inbound(place, report)
    path = find_model(place.spec.model).path
    # Which layers they are, and so whether they are the last ones, is the same in all its places.
    masks = masks_of_model(path) if is_last(place.spec) else None
    model = load_stage(
        path,
        place.spec.layers,
        device,
        lambda loaded, total: report(Loading(loaded, total)),
        place.spec.kv_bits,
    )
    while True:
        orders.listen(receiver)
        if not orders.is_moved:
            executor = new_executor(place.spec, model, masks)
            report(Ready(peak_memory_bytes(), device.backend, device.note))
            outbound, index = place.exits.outbound, place.spec.index
            run_steps(executor, receiver, outbound, index, work, lambda: orders.is_moved)
            del executor  # and its caches
            mx.clear_cache()
        place = orders.move()
        # What is still in it was sent to the old place.
        receiver.close()
        receiver = open_inbound(place, report)


def open_inbound(place: Place, report: Say) -> ZmqReceiver:
    """Where steps come in from now on."""
    receiver = ZmqReceiver(place.spec.inbound, guard=guard_of(place.spec))
    report(Bound(receiver.port, place.number))
    return receiver


def guard_of(spec: StageSpec) -> Guard | None:
    """Who may send steps; None where only this machine can."""
    if spec.keys is None or spec.inbound.startswith("ipc:"):
        return None
    senders = frozenset(spec.senders)
    return Guard(spec.keys, senders.__contains__)


def new_executor(spec: StageSpec, model: StageModel, masks: GrammarMasks | None) -> StageExecutor:
    """One that knows nothing of what was computed in another place."""
    saved = Path(spec.saved_folder) if spec.saved_folder is not None else None
    caches = CacheStore(model.make_cache, saved)
    rules = RulesStore(masks) if masks is not None else None
    return StageExecutor(model, caches, spec.index, spec.num_stages, spec.epoch, rules=rules)


def is_last(spec: StageSpec) -> bool:
    """Whether this stage samples."""
    return spec.index == spec.num_stages - 1
