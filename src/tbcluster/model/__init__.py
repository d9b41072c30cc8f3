"""Any mlx-lm model -> its stages: slicing, weights, caches, sampling. MLX, and no sockets."""
