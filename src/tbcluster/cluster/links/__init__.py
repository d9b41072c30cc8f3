"""Links between nodes: which ways there are, how fast each is, which of them answer now."""
