"""The harness: settings, the training loop, evaluation, run directories, sweeps, trackers, and planning of runs."""
