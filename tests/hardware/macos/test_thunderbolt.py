"""Which Thunderbolt port leads to whom, from recorded shapes."""

from tbcluster.hardware.macos.hardware_ports import hardware_ports, receptacles
from tbcluster.hardware.macos.profiler import Item, profiler_items
from tbcluster.hardware.macos.thunderbolt import thunderbolt_ports
from tbcluster.machine import ThunderboltPort
from tests.doubles.mac import recorded


def buses(name: str) -> list[Item]:
    items = profiler_items(recorded(name), "SPThunderboltDataType")
    assert items is not None
    return items


def ports(name: str) -> dict[str, ThunderboltPort]:
    interfaces = receptacles(hardware_ports(recorded("hardware_ports_studio.txt")))
    return {port.receptacle: port for port in thunderbolt_ports(buses(name), interfaces)}


def test_a_thunderbolt_5_link() -> None:
    found = ports("thunderbolt_tb5_link.json")
    assert list(found) == ["1", "2", "3", "4"]
    assert found["2"] == ThunderboltPort(
        receptacle="2",
        interface="en3",
        port_id="C0FFEE11-1A2B-4C3D-8E4F-000000000011",
        generation=5,
        link_gbps=80,
        peer_port_id="C0FFEE21-1A2B-4C3D-8E4F-000000000021",
        peer_model="Mac17,7",
        peer_has_rdma=True,
    )


def test_the_two_ends_of_a_cable_name_each_other() -> None:
    here = ports("thunderbolt_tb5_link.json")["2"]
    there = ports("thunderbolt_tb5_link_other_end.json")["1"]
    assert (here.port_id, here.peer_port_id) == (there.peer_port_id, there.port_id)
    # RDMA is on at the other end of this one, and off at the other end of that one.
    assert (here.peer_has_rdma, there.peer_has_rdma) == (True, False)


def test_a_drive_is_no_computer() -> None:
    drive = ports("thunderbolt_tb5_link.json")["3"]
    assert (drive.link_gbps, drive.devices) == (80, ("Example Drive Ultra",))
    assert (drive.peer_port_id, drive.peer_model, drive.via) == (None, None, ())


def test_an_idle_port_tells_what_it_could_do() -> None:
    idle = ports("thunderbolt_tb5_link.json")["1"]
    assert (idle.generation, idle.link_gbps, idle.peer_port_id) == (5, None, None)
    old = ports("thunderbolt_tb4_idle.json")
    assert [(port.generation, port.link_gbps) for port in old.values()] == [(4, None), (4, None)]


def test_a_dock_in_between() -> None:
    port = ports("thunderbolt_dock_between.json")["3"]
    assert (port.via, port.devices) == (("Example Dock 8",), ("Example Dock 8",))
    assert (port.peer_model, port.peer_port_id, port.link_gbps) == ("Mac16,5", None, 40)


def test_a_dock_alone() -> None:
    port = ports("thunderbolt_dock_between.json")["2"]
    assert (port.via, port.devices, port.peer_model) == ((), ("Example Dock 3S",), None)


def test_a_slow_cable_in_a_fast_port() -> None:
    # Its own speed does not tell, the idle port beside it does.
    port = ports("thunderbolt_dock_between.json")["4"]
    assert (port.generation, port.link_gbps, port.peer_model) == (5, 40, "Mac16,11")
    alone = [bus for bus in buses("thunderbolt_dock_between.json") if bus["_name"][-1] == "3"]
    assert [found.generation for found in thunderbolt_ports(alone, {})] == [None]


def test_the_nearest_of_two_computers_counts() -> None:
    (bus,) = (one for one in buses("thunderbolt_dock_between.json") if one["_name"][-1] == "2")
    near = {"device_name_key": "Mac14,13", "domain_uuid_key": "C0FFEE77"}
    bus["_items"] = [*bus["_items"], near]
    (port,) = thunderbolt_ports([bus], {})
    assert (port.peer_model, port.peer_port_id, port.via) == ("Mac14,13", "C0FFEE77", ())


def test_receptacles_are_in_order_of_their_numbers() -> None:
    many = [{"receptacle_1_tag": {"receptacle_id_key": str(n)}} for n in (10, 2, 1)]
    assert [port.receptacle for port in thunderbolt_ports(many, {})] == ["1", "2", "10"]


def test_what_is_missing_is_left_out() -> None:
    assert thunderbolt_ports([], {}) == ()
    assert thunderbolt_ports([{"_name": "thunderboltusb4_bus_0"}], {}) == ()
    assert thunderbolt_ports([{"receptacle_1_tag": "redacted"}], {}) == ()
    (port,) = thunderbolt_ports([{"receptacle_1_tag": {}, "domain_uuid_key": 7}], {})
    assert port == ThunderboltPort("?")
    garbage = {"_items": [None, "x", {"services_title": "x"}], "receptacle_1_tag": {}}
    (port,) = thunderbolt_ports([garbage], {})
    assert (port.peer_port_id, port.devices) == (None, ("unnamed device",))


def test_a_speed_that_is_none() -> None:
    for speed in ("", "fast", "Gb/s", f"{'9' * 5000} Tb/s"):
        tag = {"receptacle_id_key": "1", "current_speed_key": speed}
        assert thunderbolt_ports([{"receptacle_1_tag": tag}], {}) == (ThunderboltPort("1"),)


def test_the_deepest_tree_is_walked() -> None:
    item: Item = {"_name": "leaf", "domain_uuid_key": "C0FFEE88"}
    for _ in range(3000):
        item = {"_name": "dock", "_items": [item]}
    (port,) = thunderbolt_ports([{"receptacle_1_tag": {}, "_items": [item]}], {})
    assert port.peer_port_id == "C0FFEE88"
    assert len(port.via) == 3000
