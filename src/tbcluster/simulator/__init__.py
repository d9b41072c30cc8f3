"""The real engine and planner on a virtual clock: what a rack would do, without the rack."""
