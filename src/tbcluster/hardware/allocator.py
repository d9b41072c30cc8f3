"""What the C library does with memory that was freed."""

import ctypes
import sys

# From glibc's malloc.h.
_M_ARENA_MAX = -8
_NUM_ARENAS = 2


def share_arenas() -> None:
    """Let threads share heaps, before there are any. glibc gives each its own, and each keeps what
    the largest body ever handled there took; macOS's allocator does not."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, _NUM_ARENAS)
