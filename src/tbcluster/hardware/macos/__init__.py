"""macOS as its own tools describe it. Every reader here is pure, and takes text that was cut off
or garbled for what is left of it."""
