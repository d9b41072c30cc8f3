"""The file that describes a fleet, in TOML: sites in regions, each a rack file or so many machines
of some kinds. `configs/fleets/` has an example."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tbcluster.cluster.plan_rack import GBIT, rack_of_file
from tbcluster.cluster.rack_file import Chip, LinkKind, Name, Positive, read_rack_file
from tbcluster.cluster.rack_shapes import NodeKind, RackShapes
from tbcluster.cluster.toml_files import read_tables, refusal
from tbcluster.errors import PlanError, RackFileError
from tbcluster.planner.fleet import Fleet, FleetSite
from tbcluster.planner.nodes import PlanLink, PlanRack

MAX_COUNT = 100_000
# What TCP carries of a line's rate.
TCP_SHARE = 0.94
TABLES = ("sites", "regions")

Count = Annotated[int, Field(gt=0, le=MAX_COUNT)]


class _Table(BaseModel):
    """Fields that are not declared are refused, and no value is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FleetNodes(_Table):
    """So many machines of one kind; fields as in a rack file."""

    chip: Chip
    memory_gb: Positive
    gpu_cores: Annotated[int, Field(gt=0)] | None = None
    count: Count = 1


class FleetSiteTable(_Table):
    """A site, or so many equal ones.

    Attributes:
        count: How many such sites there are; they are then called "name-1" and so on.
        rack: Its rack file, relative to this file.
        nodes: Its machines, where no rack file describes them.
        link: How machines of one kind are linked: cables where their ports allow, beside gigabit
            Ethernet, or a network that all share.
    """

    name: Name
    region: Name
    count: Count = 1
    rack: Annotated[str, Field(min_length=1)] | None = None
    # TOML has lists alone.
    nodes: Annotated[tuple[FleetNodes, ...], Field(strict=False)] = ()
    link: LinkKind | None = None

    @model_validator(mode="after")
    def _is_one_rack(self) -> Self:
        if (self.rack is None) == (not self.nodes):
            raise refusal(f"site {self.name!r}: give it a rack file or nodes, one of them")
        if self.rack is not None and self.link is not None:
            raise refusal(f"site {self.name!r}: its rack file says the links: leave link out")
        return self


class FleetRegionTable(_Table):
    """How the sites of a region reach each other. Where it is given, sites which hold no copy alone
    are joined.

    Attributes:
        latency_ms: One way, for a small message.
        gbps: Gigabits a second.
    """

    name: Name
    latency_ms: Positive
    gbps: Positive


class FleetFile(_Table):
    """A fleet as its file describes it."""

    name: Name
    sites: Annotated[tuple[FleetSiteTable, ...], Field(strict=False)]
    regions: Annotated[tuple[FleetRegionTable, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        if not self.sites:
            raise refusal("it has no sites: add a [[sites]] table for each kind of site")
        _check_once("sites", [site.name for site in self.sites])
        _check_once("regions", [region.name for region in self.regions])
        known = dict.fromkeys(site.region for site in self.sites)
        for region in self.regions:
            if region.name not in known:
                raise refusal(
                    f"[[regions]]: no site is in {region.name!r}: take one of {', '.join(known)}"
                )
        return self


def read_fleet_file(path: Path) -> FleetFile:
    """A fleet file, checked.

    Raises:
        RackFileError: It cannot be read, is no TOML, or says what no fleet can be; names the line
            or the field, its value, and what to write instead.
    """
    return read_tables(path, FleetFile, "fleet", TABLES, "configs/fleets for one")


def fleet_of_file(file: FleetFile, folder: Path, weight_kind: str) -> Fleet:
    """The fleet as the planner sees it. Equal sites share one rack.

    Args:
        folder: Where rack files are looked for.
        weight_kind: Of the model's weights (`ModelProfile.weight_kind`).

    Raises:
        RackFileError: A rack file cannot be used.
        PlanError: A chip is not known, or two sites have one name.
    """
    sites = tuple(site for table in file.sites for site in _sites(table, folder, weight_kind))
    links = {
        region.name: PlanLink(region.latency_ms / 1e3, region.gbps * GBIT * TCP_SHARE, "region")
        for region in file.regions
    }
    return Fleet(sites, links)


def _sites(table: FleetSiteTable, folder: Path, weight_kind: str) -> Iterator[FleetSite]:
    try:
        rack = _rack(table, folder, weight_kind)
    except (RackFileError, PlanError) as error:
        raise RackFileError(f"site {table.name!r}: {error}") from error
    for number in range(1, table.count + 1):
        name = table.name if table.count == 1 else f"{table.name}-{number}"
        yield FleetSite(name, table.region, rack, table.name)


def _rack(table: FleetSiteTable, folder: Path, weight_kind: str) -> PlanRack:
    if table.rack is not None:
        return rack_of_file(read_rack_file(folder / Path(table.rack).expanduser()), weight_kind)
    groups: dict[NodeKind, int] = {}
    for nodes in table.nodes:
        kind = NodeKind(nodes.chip, nodes.memory_gb, nodes.gpu_cores)
        groups[kind] = groups.get(kind, 0) + nodes.count
    return RackShapes(weight_kind, table.link or "thunderbolt5").rack(list(groups.items()))


def _check_once(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise refusal(f"two {what} are called {name!r}: give each a name of its own")
