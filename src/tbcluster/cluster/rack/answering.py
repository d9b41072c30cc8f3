"""Answers commands on the head node: what is asked of the coordinator while it runs."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import version

from tbcluster.cluster.rack.actions import Action
from tbcluster.cluster.rack.attendance import Attendance
from tbcluster.cluster.rack.link_book import LinkBook
from tbcluster.cluster.rack.link_keeper import LinkKeeper
from tbcluster.cluster.rack.questions import Answer, Questions
from tbcluster.cluster.trust.identity import HeadIdentity
from tbcluster.errors import TbclusterError
from tbcluster.machine import NodeView, RackView, Serving
from tbcluster.wire.rack import AskRack


class Answering:
    """All methods but `view` are called in the control plane's thread.

    Args:
        nodes: All nodes as they are now.
        describe: Says what is served.
        may_drain: Says why a node of this name cannot be drained, or None.
        perform: Does what the attendance decides.
        post: Has something done in the control plane's thread.
    """

    def __init__(
        self,
        head: HeadIdentity,
        attendance: Attendance,
        links: LinkBook,
        link_keeper: LinkKeeper,
        *,
        nodes: Callable[[], list[NodeView]],
        describe: Callable[[], Serving | None],
        may_drain: Callable[[str], str | None],
        perform: Callable[[Iterable[Action]], None],
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._head = head
        self._attendance = attendance
        self._links = links
        self._link_keeper = link_keeper
        self._nodes = nodes
        self._describe = describe
        self._may_drain = may_drain
        self._perform = perform
        self._post = post
        self._questions = Questions()

    def view(self) -> RackView:
        """Everything there is to know. Thread-safe."""
        serving = self._describe()
        stages = serving.stages if serving is not None else {}
        return RackView(
            cluster_id=self._head.cluster_id,
            cluster_name=self._head.cluster_name,
            tbcluster_version=version("tbcluster"),
            nodes=tuple(replace(node, stages=stages.get(node.name, ())) for node in self._nodes()),
            links=self._links.views(),
            serving=serving.model if serving is not None else None,
            serving_state=serving.state if serving is not None else None,
        )

    def ask(self, question: AskRack, answer: Answer, refuse: Callable[[str], None]) -> None:
        """Answer as soon as what is asked for is known, or refuse with the reason."""
        if not question.may_drain:
            self._begin(question, answer)
            return

        def consider() -> None:
            why = self._why_not_drained(question.may_drain)
            if why is None:
                self._post(lambda: self._begin(question, answer))
            else:
                self._post(lambda: refuse(why))

        # Planning takes longer than a beat may be late.
        threading.Thread(target=consider, name="may drain", daemon=True).start()

    def looked(self, node_id: str) -> None:
        """A node has looked at its machine, or is gone."""
        self._questions.looked(node_id)

    def due(self, now: float) -> None:
        """Answer those who need not wait any more."""
        for answer in self._questions.due(now, is_measuring=self._link_keeper.is_busy()):
            answer(self.view())

    def _why_not_drained(self, name: str) -> str | None:
        try:
            return self._may_drain(name)
        except TbclusterError as error:
            return str(error)

    def _begin(self, question: AskRack, answer: Answer) -> None:
        online = self._attendance.online()
        to_inspect = online if question.inspects else []
        self._questions.add(answer, to_inspect, measures=question.measures, now=time.monotonic())
        if question.measures:
            for node_id in online:
                self._link_keeper.measure(node_id, anew=True)
        if question.inspects:
            self._perform(self._attendance.inspect_all())
