"""What there is to see of a rack at this moment, once a second, for all who look."""
