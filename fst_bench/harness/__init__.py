"""The harness: settings, the training loop, evaluation, the run directory, sweeps, trackers, and planning before a run starts."""
