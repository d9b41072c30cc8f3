"""What the keeper looks after, and who plans for it: interfaces."""

from collections.abc import Callable
from typing import Protocol

from tbcluster.cluster.recovery.machine import Nodes
from tbcluster.cluster.served_model import ServedModel
from tbcluster.cluster.stages import StageSet
from tbcluster.cluster.status import ClusterState
from tbcluster.engine.engine import Engine
from tbcluster.errors import TbclusterError


class Replanner(Protocol):
    """Makes new plans for a replica; on one machine there is none."""

    @property
    def seen(self) -> Nodes:
        """The nodes that were there when the replica was planned first."""
        ...

    def usable(self) -> Nodes:
        """The nodes that stages can be on now."""
        ...

    def follow(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Have `on_change` called, in another thread, whenever nodes come, go, or are drained; the
        result ends that."""
        ...

    def is_settled(self) -> bool:
        """Whether the links between all nodes that are there have been measured."""
        ...

    @property
    def lacked_ways(self) -> bool:
        """Whether not all nodes could reach each other when the plan in force was made."""
        ...

    def plan(self, nodes: Nodes) -> bool:
        """Make a plan for these nodes; whether it is another one than the one in force.

        Raises:
            TbclusterError: There is none.
        """
        ...

    @property
    def gain(self) -> float:
        """How many times the present throughput the plan that was made last would give."""
        ...

    def prepare(self, gives_up: Callable[[], bool]) -> ServedModel:
        """Have the nodes of the plan that was made last fetch what they lack.

        Raises:
            ClusterClosedError: It was given up.
            TbclusterError: They cannot.
        """
        ...

    def settle(self) -> None:
        """The stages of what was prepared last are in force.

        Raises:
            PlanError: That plan does not hold any more.
        """
        ...


class Tended(Protocol):
    """The replica that is looked after."""

    @property
    def model(self) -> ServedModel:
        """As it is placed now."""
        ...

    @property
    def engine(self) -> Engine:
        """Its token loop."""
        ...

    @property
    def stages(self) -> StageSet:
        """Those of the plan in force."""
        ...

    def pause(self) -> None:
        """Let running requests wait; where another replica is up, they go on there."""
        ...

    def check(self) -> None:
        """Raises: ParityError, or StageLostError when a stage was lost meanwhile."""
        ...

    def switch(self, model: ServedModel, epoch: int) -> None:
        """Begin an epoch with the stages of another plan; those that are the same in both stay
        loaded.

        Raises:
            TbclusterError: The other plan does not hold any more, and all is as it was; or one
                cannot be started, and the other plan is in force.
        """
        ...

    def become(self, state: ClusterState, doing: str | None = None) -> None:
        """Say what is being done."""
        ...

    def give_up(self, error: TbclusterError) -> None:
        """No more requests can be answered."""
        ...
