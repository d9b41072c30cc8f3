"""The stages of a replica under one plan, and what connects them with the coordinator."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tbcluster.cluster.engine_parts import new_works
from tbcluster.cluster.places import LocalPlaces, Places
from tbcluster.cluster.prefix_folder import stage_folders
from tbcluster.cluster.served_model import ServedModel
from tbcluster.cluster.stage_work import StageWork
from tbcluster.cluster.stages import Inbox, OnLoss, OnProgress, StageSet
from tbcluster.engine.engine import Works
from tbcluster.engine.pipeline import Pipeline
from tbcluster.transport.zeromq import RoutedSender, ZmqReceiver

if TYPE_CHECKING:
    # One machine alone needs none of it, and it takes its time to import.
    from tbcluster.cluster.rack.rack import Rack


@dataclass(frozen=True, slots=True)
class Assembly:
    """What runs a model by one plan: everything but the engine, which outlives it.

    Attributes:
        works: What the engine drives.
        cleanup: Ends the stages and closes the connections.
    """

    model: ServedModel
    stages: StageSet
    works: Works
    cleanup: ExitStack


# Results come one after the other: between two of them is no more than the slowest stage's step.
DEADLINE_FACTOR = 1.5

NewPlaces = Callable[[ServedModel], Places]


def assemble(
    model: ServedModel,
    new_places: NewPlaces,
    epoch: int,
    inbox: Inbox,
    on_progress: OnProgress,
    on_loss: OnLoss,
) -> Assembly:
    """Everything but the stage workers, which are started after it.

    Args:
        new_places: Makes the places where the stages run.
        epoch: The first one.
        inbox, on_progress, on_loss: See `StageSet`.
    """
    places = new_places(model)
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
            shards=model.shards,
            step_limit_s=model.step_limit_s,
            replica=model.replica,
            first_index=model.first_stage,
        )
        stages = StageSet(work, places, sender, receiver.port, on_progress, on_loss, inbox)
        cleanup.callback(stages.close)
        pipeline = Pipeline(
            sender,
            receiver,
            epoch,
            on_gap=stages.lose_step,
            is_looped=model.facts.num_visits > 1,
            deadline_s=DEADLINE_FACTOR * model.step_limit_s,
        )
        works = new_works(model, pipeline)
        if works.disk is not None:
            cleanup.callback(works.disk.close)
        return Assembly(model, stages, works, cleanup.pop_all())


def places_on(rack: "Rack | None") -> NewPlaces:
    """Makes places on a rack's nodes; on this machine where there is none."""

    def new_places(model: ServedModel) -> Places:
        if rack is None or model.nodes is None:
            return LocalPlaces()
        return rack.places(model.nodes, is_looped=model.facts.num_visits > 1)

    return new_places
