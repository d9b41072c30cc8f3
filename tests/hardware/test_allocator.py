"""Threads share heaps once they are told to."""

import re
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from tbcluster.hardware.allocator import share_arenas
if sys.argv[1] == "shared":
    share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
all_there = threading.Barrier(8)
def allocate():
    all_there.wait()
    for _ in range(1000):
        libc.malloc(ctypes.c_size_t(3000))
    all_there.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


def num_heaps(how: str) -> int:
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return len(re.findall("<heap nr=", done.stdout))


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")
def test_threads_share_heaps() -> None:
    assert num_heaps("own") > 2
    assert num_heaps("shared") <= 2
