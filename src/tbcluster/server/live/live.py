"""All that shows a server at work: put together, started and ended."""

from collections.abc import Callable

from tbcluster.cluster.energy.watch import EnergyWatch
from tbcluster.cluster.models.models import Models
from tbcluster.machine import RackView
from tbcluster.server.live.events import EventLog
from tbcluster.server.live.feed import Feed
from tbcluster.server.live.looking import Looker
from tbcluster.server.live.sampler import Sampler


class Live:
    """Views once a second, from `start` to `close`.

    Args:
        word: The server's state, as `/health` says it.
        energy: Knows what nodes draw.
        rack: The rack as its coordinator sees it; None for one machine alone.
        events: Where what happened is kept.
    """

    def __init__(
        self,
        models: Models,
        word: Callable[[], str],
        energy: EnergyWatch,
        rack: Callable[[], RackView] | None = None,
        events: EventLog | None = None,
    ) -> None:
        self.feed = Feed()
        look = Looker(models, word, energy, rack)
        self._sampler = Sampler(look, self.feed, events or EventLog())

    def start(self) -> None:
        """Begin to look."""
        self._sampler.start()

    def end(self) -> None:
        """Let go of all who look."""
        self._sampler.end()

    def close(self) -> None:
        """The same, and wait until the last look is over, which may take a while."""
        self._sampler.close()
