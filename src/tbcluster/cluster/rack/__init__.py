"""The coordinator's side of the control plane: who is there, how they are linked, what they run."""
