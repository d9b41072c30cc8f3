"""What crosses a socket: messages and tensors <-> frames. No I/O, no MLX."""
