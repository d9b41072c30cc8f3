"""How messages cross: a channel interface, ZeroMQ, and an in-memory twin for tests."""
