from tests.rack.test_losses import *  # noqa
from tests.rack.test_losses import rack, undisturbed, begun, finished, running  # noqa
for _name in [n for n in globals() if n.startswith("test_")]:
    del globals()[_name]

def test_rename_then_kill(rack, undisturbed):
    streams = begun(rack)
    rack.tbcluster(HEAD, "nodes", "rename", TWO, "deux")
    wait_until(lambda: "deux" in rack.nodes_in_use(), "named")
    pids = [s["pid"] for s in rack.stages()]
    rack.tbcluster(HEAD, "drain", THREE)
    assert finished(streams) == undisturbed
    print(rack.stages(), pids)
    rack.tbcluster(HEAD, "undrain", THREE)
    wait_until(lambda: rack.nodes_in_use() == {HEAD, "deux", THREE}, "all nodes run stages")
    rack.await_well()
    rack.tbcluster(HEAD, "nodes", "rename", "deux", TWO)

def test_revoke(rack, undisturbed):
    streams = begun(rack)
    rack.tbcluster(HEAD, "nodes", "revoke", THREE, "--yes")
    assert finished(streams) == undisturbed
    assert THREE not in rack.nodes_in_use()
    rack.await_well()
    assert finished(running(rack)) == undisturbed
