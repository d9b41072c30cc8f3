"""The stage worker process: receive -> cache operations -> owned layers -> send on."""
