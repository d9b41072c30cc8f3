"""The chaos soak: faults at random beside running streams, whose answers must not change."""
