"""What became of a request, step by step: data, and pictures of it. No I/O."""
