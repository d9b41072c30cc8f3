"""What serving costs in joules: of nodes, models, requests and keys."""
