"""What this machine is: probes behind one seam for macOS and Linux."""
