"""The control plane: starting and watching stages, checking parity, recovery."""
