"""What of a model is on this node's disk, and whether the hub would give it the rest: asked by the
coordinator before anything is fetched."""

import sys
import threading
from pathlib import Path

from tbcluster.checkpoint import Listing, merged
from tbcluster.weights.checking import recheck, reporting, verify
from tbcluster.weights.hub import Hub
from tbcluster.weights.in_place import find_in_place, use_in_place
from tbcluster.weights.parent import OnReport, run_errand
from tbcluster.weights.store import Store, writes
from tbcluster.wire.errands import Surveyed, SurveySpec

# For the hub to answer, names looked up included: a network may swallow all that is asked.
HUB_S = 6.0


def survey(spec: SurveySpec, report: OnReport) -> Surveyed:
    """All that is here and verified, in the store and outside of it; what lies outside is noted in
    the store, so that other nodes can copy it. While a fetch writes there, it is what that has
    verified so far.

    Raises:
        FetchError: The store cannot be used.
    """
    listing = spec.listing
    reaches_hub = spec.tries_hub and _reaches(Hub(spec.hub), listing)
    revision = Store(Path(spec.store)).revision(listing.model, listing.revision)
    is_known = revision.listing() is not None
    if not is_known and not find_in_place(listing, listing.files, spec.folders):
        return Surveyed((), reaches_hub)
    with (
        revision.locked(listing, waits=spec.verifies) as is_ours,
        writes(revision.path),
    ):
        if is_ours:
            use_in_place(revision, listing, spec.folders)
            check = verify if spec.verifies else recheck
            check(revision, listing.files, reporting(report))
        spans = merged(span for file in listing.files for span in revision.spans(file))
    return Surveyed(spans, reaches_hub)


def _reaches(hub: Hub, listing: Listing) -> bool:
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(hub.gives(listing)), daemon=True)
    thread.start()
    thread.join(HUB_S)
    return answers == [True]


if __name__ == "__main__":
    sys.exit(run_errand(SurveySpec, survey))
