"""The file that describes a rack, in TOML: who its nodes are, where they are reached, how they are
cabled. `configs/` has examples and the list of fields."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from tbcluster.cluster.discovery.addresses import join_port
from tbcluster.cluster.own_chips import ChipTable
from tbcluster.cluster.rack_address import parse_address
from tbcluster.cluster.toml_files import CHIP_PATTERN, read_tables, refusal
from tbcluster.cluster.trust.identity import CONTROL_PORT, MAX_CONTROL_PORT
from tbcluster.cluster.trust.names import MAX_LENGTH, is_name

TABLES = ("nodes", "links", "chips")
LinkKind = Literal[
    "thunderbolt5",
    "thunderbolt4",
    "thunderbolt3",
    "ethernet10",
    "ethernet5",
    "ethernet2.5",
    "ethernet1",
    "wifi",
]


def _checked_address(text: str) -> str:
    try:
        parse_address(text)
    except ValueError as error:
        raise refusal(str(error)) from error
    return text


def _checked_name(text: str) -> str:
    if not is_name(text):
        raise refusal(f"{text[:80]!r} is no name: use up to {MAX_LENGTH} of A-Z a-z 0-9 . _ -")
    return text


Name = Annotated[str, AfterValidator(_checked_name)]
Chip = Annotated[str, StringConstraints(pattern=CHIP_PATTERN)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NodeAddress = Annotated[str, AfterValidator(_checked_address)]


class _Table(BaseModel):
    """Fields that are not declared are refused, and no value is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RackNode(_Table):
    """One machine of the rack.

    Attributes:
        addresses: Where it is reached, best first: IP addresses or host names, with or without a
            port. Agents dial those of the head node.
        chip: As "About This Mac" has it, without "Apple": "M4 Pro".
        memory_gb: Unified memory.
        gpu_cores: Tells apart the chips of one name.
        storage_gb: Space for models.
    """

    name: Name
    # TOML has lists alone.
    addresses: Annotated[tuple[NodeAddress, ...], Field(strict=False)] = ()
    chip: Chip | None = None
    memory_gb: Positive | None = None
    gpu_cores: Annotated[int, Field(gt=0)] | None = None
    storage_gb: Positive | None = None


class RackLink(_Table):
    """One cable between two nodes; two cables are two of these.

    Attributes:
        between: The names of both nodes.
        gbps: Gigabits a second, where it is known to be less than the kind has.
    """

    between: Annotated[tuple[Name, Name], Field(strict=False)]
    kind: LinkKind
    gbps: Positive | None = None


class RackFile(_Table):
    """A rack as its file describes it.

    Attributes:
        head: Name of the node that runs the coordinator.
        chips: What the catalogue does not know, or has otherwise.
    """

    name: Name
    control_port: Annotated[int, Field(gt=0, le=MAX_CONTROL_PORT)] = CONTROL_PORT
    head: Name
    nodes: Annotated[tuple[RackNode, ...], Field(strict=False)]
    links: Annotated[tuple[RackLink, ...], Field(strict=False)] = ()
    chips: Annotated[tuple[ChipTable, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [node.name for node in self.nodes]
        known = ", ".join(dict.fromkeys(names))
        if not names:
            raise refusal("it has no nodes: add a [[nodes]] table for each machine")
        for name in names:
            if names.count(name) > 1:
                raise refusal(f"two nodes are called {name!r}: give each a name of its own")
        if self.head not in names:
            raise refusal(f"head is {self.head!r}, which is none of the nodes: take one of {known}")
        for number, link in enumerate(self.links, 1):
            for end in link.between:
                if end not in names:
                    raise refusal(
                        f"[[links]] {number}: between names {end!r}, which is none of the nodes: "
                        f"take two of {known}"
                    )
            if link.between[0] == link.between[1]:
                raise refusal(
                    f"[[links]] {number}: between names {link.between[0]!r} twice: name both ends"
                )
        return self

    def head_addresses(self) -> tuple[str, ...]:
        """Where the coordinator listens, each with its port: `192.0.2.1:29640`,
        `[fe80::1%en3]:29640`."""
        head = next(node for node in self.nodes if node.name == self.head)
        return tuple(
            join_port(host, self.control_port if port is None else port)
            for host, port in map(parse_address, head.addresses)
        )


def read_rack_file(path: Path) -> RackFile:
    """A rack file, checked.

    Raises:
        RackFileError: It cannot be read, is no TOML, or says what no rack can be; names the line
            or the field, its value, and what to write instead.
    """
    return read_tables(path, RackFile, "rack", TABLES, "configs/ for examples")
