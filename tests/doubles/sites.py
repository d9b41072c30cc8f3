"""Sites of agents, as tests need them."""

from pathlib import Path

from tbcluster.cluster.agent.site import Site
from tbcluster.transport.curve import new_keys
from tbcluster.weights.tls import new_certificate

NODE_KEYS = new_keys()
CERTIFICATE, CERTIFICATE_KEY = new_certificate()


def site_at(run_dir: Path, models: Path | None = None) -> Site:
    """A machine whose store is beside its sockets."""
    return Site(NODE_KEYS, run_dir, models, run_dir / "store", CERTIFICATE, CERTIFICATE_KEY)
