"""Before a run starts: what it would cost, whether it fits the hardware, and what this machine can run."""
