"""Measurements of tbcluster: `./scripts/bench` lists them, `./scripts/bench NAME` runs one."""
