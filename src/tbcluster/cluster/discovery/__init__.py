"""Where the coordinator is: by multicast DNS, and in which order addresses are tried."""
