"""What of a model is on this node's disk: asked by the coordinator before anything is fetched."""

import sys
from pathlib import Path

from tbcluster.checkpoint import merged
from tbcluster.weights.checking import recheck, verify
from tbcluster.weights.in_place import find_in_place, use_in_place
from tbcluster.weights.parent import OnReport, run_errand
from tbcluster.weights.store import Store
from tbcluster.wire.errands import Surveyed, SurveySpec


def survey(spec: SurveySpec, _: OnReport) -> Surveyed:
    """All that is here and verified, in the store and outside of it; what lies outside is noted in
    the store, so that other nodes can copy it.

    Raises:
        FetchError: The store cannot be used.
        OSError: A file of it cannot be read.
    """
    listing = spec.listing
    revision = Store(Path(spec.store)).revision(listing.model, listing.revision)
    is_known = revision.listing() is not None
    if not is_known and not find_in_place(listing, listing.files, spec.folders):
        return Surveyed(())
    with revision.locked(listing):
        use_in_place(revision, listing, spec.folders)
        if spec.verifies:
            verify(revision, listing.files)
        else:
            recheck(revision, listing.files)
    return Surveyed(merged(span for file in listing.files for span in revision.spans(file)))


if __name__ == "__main__":
    sys.exit(run_errand(SurveySpec, survey))
