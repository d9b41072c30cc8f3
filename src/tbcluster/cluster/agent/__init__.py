"""The agent: one process per machine, which belongs to the cluster and runs stage workers."""
