"""What is wrong with a rack, and the command that mends it: pure checks of what nodes report."""
