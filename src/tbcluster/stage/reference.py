"""`python -m tbcluster.stage.reference`: the parity check's reference, in a process of its own.

It is apart from the coordinator so that running out of memory here harms nothing else.
"""

import logging
import sys
from pathlib import Path

from tbcluster.errors import TbclusterError
from tbcluster.model.device import prepare_device
from tbcluster.model.reference import reference_continuation
from tbcluster.stage.parent import follow_parent, meet_parent, read_spec
from tbcluster.wire.control import Failed, ReferenceSpec


def main() -> int:
    """Read a `ReferenceSpec`, write a `Reference`."""
    stdin, report = meet_parent()
    logging.basicConfig(format="tbcluster reference: %(message)s", level=logging.WARNING)
    spec = read_spec(stdin, ReferenceSpec)
    follow_parent(stdin, None)
    try:
        path, prompt = Path(spec.model_path), list(spec.prompt)
        report(
            reference_continuation(path, prepare_device(), prompt, spec.num_tokens, spec.kv_bits)
        )
    except (TbclusterError, OSError, RuntimeError, MemoryError) as error:
        report(Failed(type(error).__name__, str(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
