"""Faults that really happen: to processes, memory, links, and what crosses between stages."""
