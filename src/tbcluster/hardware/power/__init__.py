"""What this machine draws, by whatever meter it has."""
