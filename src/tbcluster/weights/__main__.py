"""`python -m tbcluster.weights`: has parts of a model on this node's disk."""

import sys

from tbcluster.weights.fetching import fetch
from tbcluster.weights.parent import run_errand
from tbcluster.wire.errands import FetchSpec

sys.exit(run_errand(FetchSpec, fetch))
