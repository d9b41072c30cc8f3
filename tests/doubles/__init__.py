"""Stand-ins and generators that several tests share."""
