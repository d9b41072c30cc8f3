"""Weights on their way to a node's disk: fetched in parts, verified, shared with neighbours."""
