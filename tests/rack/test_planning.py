"""Plans for a rack whose coordinator runs."""

import json

from tests.rack.racks import FoundRack


def test_a_plan_beside_the_running_coordinator(rack: FoundRack) -> None:
    done = rack.tbcluster("head", "plan", "--json", "--context", "256", "--stages", "3")
    told = json.loads(done.stdout)
    assert {node["name"] for node in told["rack"]["nodes"]} == set(rack.nodes)
    # `serve` has measured the nodes before it planned.
    assert {node["speed"]["source"] for node in told["rack"]["nodes"]} == {"measured"}
    (replica,) = told["plan"]["replicas"]
    assert {stage["node"] for stage in replica["stages"]} == set(rack.nodes)
    shown = rack.tbcluster("head", "plan")
    assert "tokens/s for one stream" in shown.stdout
    assert "planned as if tbcluster-demo were not being served" in shown.stderr
    assert rack.is_ready()


def test_weights_are_not_pulled_beside_a_running_coordinator(rack: FoundRack) -> None:
    done = rack.tbcluster("head", "pull", "owner/name", is_checked=False)
    assert done.returncode == 1
    assert "end it to pull owner/name, or serve owner/name with it" in done.stderr
    assert "Traceback" not in done.stderr
