"""What MLX says of this machine: a process of its own, so that the agent never loads MLX.

Prints one line of JSON, the fields of `Compute`.
"""

import json
import sys
from dataclasses import asdict

from tbcluster.errors import StageError
from tbcluster.model.device import compute_here


def main() -> int:
    """Print it; the status is 1, with a line on standard error, where that cannot be done."""
    try:
        compute = compute_here()
    except StageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(compute)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
