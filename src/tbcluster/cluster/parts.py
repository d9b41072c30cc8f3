"""What a running replica of a model is made of, put together."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tbcluster.cluster.engine_parts import new_caches, new_engine
from tbcluster.cluster.places import LocalPlaces, Places
from tbcluster.cluster.prefix_folder import open_prefix_disk, stage_folders
from tbcluster.cluster.served_model import ServedModel
from tbcluster.cluster.stages import OnLoss, OnProgress, StageSet, StageWork
from tbcluster.engine.engine import Engine
from tbcluster.engine.pipeline import Pipeline
from tbcluster.errors import TbclusterError
from tbcluster.transport.zeromq import RoutedSender, ZmqReceiver

if TYPE_CHECKING:
    # One machine alone needs none of it, and it takes its time to import.
    from tbcluster.cluster.rack.rack import Rack

FIRST_EPOCH = 1


@dataclass
class Parts:
    """What a running replica is made of."""

    model: ServedModel
    stages: StageSet
    engine: Engine
    cleanup: ExitStack
    threads: list[threading.Thread] = field(default_factory=list)

    def start_thread(self, name: str, target: Callable[[], None]) -> None:
        """Run `target` until the parts are taken down."""
        thread = threading.Thread(target=target, name=f"tbcluster-{name}", daemon=True)
        thread.start()
        self.threads.append(thread)

    def stop_threads(self) -> None:
        """End the engine's loop and the watcher's."""
        self.engine.stop()
        self.stages.interrupt()
        for thread in self.threads:
            thread.join()


def assemble(
    model: ServedModel,
    rack: "Rack | None",
    on_progress: OnProgress,
    on_loss: OnLoss,
    on_failure: Callable[[TbclusterError], None],
) -> Parts:
    """Everything but the stage workers, which are started after it.

    Args:
        on_progress, on_loss: See `StageSet`.
        on_failure: Called, last, with the reason why no more requests can be answered.
    """
    places = _places(model, rack)
    with ExitStack() as cleanup:
        cleanup.callback(places.close)
        receiver = ZmqReceiver(places.results, guard=places.results_guard)
        cleanup.callback(receiver.close)
        sender = RoutedSender(places.keys)
        cleanup.callback(sender.close)
        work = StageWork(
            model.sources,
            model.ranges,
            model.kv.bits,
            stage_folders(model),
            is_looped=model.facts.num_visits > 1,
            replica=model.replica,
            first_index=model.first_stage,
        )
        stages = StageSet(work, places, sender, receiver.port, on_progress, on_loss)
        cleanup.callback(stages.close)
        is_ordered = model.nodes is not None and model.facts.num_visits == 1
        on_gap = stages.lose_step if is_ordered else None
        pipeline = Pipeline(sender, receiver, FIRST_EPOCH, on_gap=on_gap)
        caches = new_caches(model)
        disk = open_prefix_disk(model, caches)
        if disk is not None:
            cleanup.callback(disk.close)
        engine = new_engine(model, pipeline, caches, disk, on_failure)
        parts = Parts(model, stages, engine, cleanup.pop_all())
    parts.cleanup.callback(parts.stop_threads)
    return parts


def _places(model: ServedModel, rack: "Rack | None") -> Places:
    if rack is None or model.nodes is None:
        return LocalPlaces()
    return rack.places(model.nodes, is_looped=model.facts.num_visits > 1)
