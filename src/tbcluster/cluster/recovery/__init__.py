"""What is done when a stage, a way or a node is lost, and when one comes back."""
