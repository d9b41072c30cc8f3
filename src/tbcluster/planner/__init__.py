"""Pure arithmetic: which node runs which layers."""
