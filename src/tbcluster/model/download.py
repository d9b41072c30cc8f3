"""All of a model from the Hugging Face hub, into its client's own cache, with its progress bars.

`python -m tbcluster.model.download NAME` is the process that does it: the client's downloads cannot
be interrupted, but a process can be ended, and what it had fetched is kept. It answers with one
line of JSON.
"""

import json
import os
import sys
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from tbcluster.checkpoint import FETCHED_FILES
from tbcluster.errors import ModelNotFoundError
from tbcluster.hardware.companion import end_with_parent, run_companion


def download(name: str) -> Path:
    """The folder with all of a model; what is missing is fetched, in a process of its own.

    Raises:
        ModelNotFoundError: There is no such repository, or it cannot be reached.
    """
    if constants.HF_HUB_OFFLINE:
        return _fetch(name)
    try:
        status, said = run_companion("tbcluster.model.download", name)
        answer = json.loads(said)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"cannot fetch {name!r} from the hub: the process that fetches it ended without an "
            "answer; start again (what has been fetched is kept)"
        ) from error
    if status:
        raise ModelNotFoundError(answer)
    return Path(answer)


def _fetch(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=FETCHED_FILES))
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"no folder and no Hugging Face repository {name!r}: check the spelling, and for a "
            "private one log in with `hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        offline = os.environ.get("HF_HUB_OFFLINE") not in (None, "", "0")
        reason = "offline mode is on (HF_HUB_OFFLINE)" if offline else "the hub cannot be reached"
        raise ModelNotFoundError(
            f"there is no folder {name!r} here; as a Hugging Face id it is not in the local cache "
            f"and {reason}: fetch it first, or give a folder"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelNotFoundError(f"cannot fetch {name!r} from the hub: {error}") from error


def main() -> int:
    """Fetch what the command line names."""
    # Whatever else is printed goes to standard error.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        end_with_parent()
        try:
            answer, status = str(_fetch(sys.argv[1])), 0
        except ModelNotFoundError as error:
            answer, status = str(error), 1
        out.write(json.dumps(answer))
    return status


if __name__ == "__main__":
    sys.exit(main())
