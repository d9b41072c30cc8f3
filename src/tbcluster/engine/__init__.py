"""The token loop: engine, scheduler, pipeline, sequences, detokenizing. No MLX, no sockets."""
