"""The two racks that the tests of this folder share."""

from collections.abc import Mapping

from tbcluster.cluster.trust import MemberFile, TrustFolder
from tests.doubles.namespaces import End, Network
from tests.doubles.own_speed import know_speed
from tests.doubles.rack import RackDouble

# A short prompt, and one of almost 800 tokens.
QUESTIONS = (
    "What is the capital of France?",
    "How do I start a cluster with tbcluster? " * 60,
)
NUM_TOKENS = 24
# What a stage of the bundled model sends on for the longer one.
NUM_HIDDEN_BYTES = 783 * 128 * 4
# Stage 0 is not beside the coordinator, so that prompts cross the network as well.
PLACES = ("two=0-2", "three=3-5", "head=6-7")
FAST_MBIT, SLOW_MBIT = 1600, 300
Answers = Mapping[tuple[int, ...], str]


class FoundRack(RackDouble):
    """One switch, with two other machines at it; when the agents start, the head node's addresses
    are others than those in the tokens.

    Attributes:
        tokens: Those that the nodes joined with.
        ends: Everyone's end of the switch's cables, by node.
    """

    def __init__(self, network: Network) -> None:
        everyone = ("head", "two", "three", "stranger", "guest")
        network.add(*everyone)
        self.ends = {end.node: end for end in network.switch(*everyone)}
        self.tokens: list[str] = []
        super().__init__(network, "head", "two", "three")

    def serve(self) -> None:
        """Start one agent before the coordinator, the other after it."""
        self.tokens = self.admit_all()
        self.ends["head"] = self.network.renumber(self.ends["head"])
        self.keep("two", "agent")
        self.keep("head", "serve", *placed())
        self.keep("three", "agent")
        self.await_ready()


class ListedRack(RackDouble):
    """Two switches without multicast, one several times as fast as the other; nobody was told an
    address.

    Attributes:
        fast, slow: The nodes' ends of each, by node.
    """

    def __init__(self, network: Network) -> None:
        network.add("head", "two", "three")
        # The slow one comes first, as Wi-Fi or the office's network might.
        self.slow, self.fast = (self._switch(network, mbit) for mbit in (SLOW_MBIT, FAST_MBIT))
        super().__init__(network, "head", "two", "three")

    def serve(self) -> None:
        """Start the coordinator first. The nodes' speeds are known: the other rack measures."""
        self.enroll_all()
        members = MemberFile(TrustFolder(self.home("head"))).nodes()
        know_speed(self.home("head"), None, node_ids=[member.node_id for member in members])
        self.keep("head", "serve", *placed())
        addresses = [self.slow["head"].ipv4, self.fast["head"].ipv4]
        path = self.home("head").parent / "rack.toml"
        path.write_text(listing(self.nodes, addresses), encoding="utf-8")
        for node in ("two", "three"):
            self.keep(node, "agent", "--rack", str(path))
        self.await_ready()

    def _switch(self, network: Network, mbit: int) -> dict[str, End]:
        ends = network.switch("head", "two", "three", multicast=False)
        for end in ends:
            network.shape(end.node, end.interface, mbit)
        return {end.node: end for end in ends}


def placed() -> list[str]:
    """Options of `serve`."""
    return [word for place in PLACES for word in ("--place", place)]


def listing(nodes: list[str], addresses: list[str]) -> str:
    """A rack file, whose first node is the head, reached at these addresses."""
    head, *others = nodes
    tables = [f'[[nodes]]\nname = "{head}"\naddresses = {addresses!r}\n']
    tables += [f'[[nodes]]\nname = "{node}"\n' for node in others]
    return "\n".join([f'name = "rack"\nhead = "{head}"\n', *tables])


def check_answers(rack: RackDouble, answers: Answers) -> None:
    """The rack says what mlx-lm does."""
    for prompt, text in answers.items():
        response = rack.complete(prompt, NUM_TOKENS)
        assert response.is_success, f"{response.text}\n{rack.said()}"
        (choice,) = response.json()["choices"]
        assert choice["text"] == text
