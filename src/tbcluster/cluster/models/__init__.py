"""The models of one server: which there are, which are loaded, and how they come and go."""
