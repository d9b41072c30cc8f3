"""Settings that hold for every test process and for the workers it starts."""

import os

# Compiling with g++ at first use costs a second a process; results are the same without.
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
