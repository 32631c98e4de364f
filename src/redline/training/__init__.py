"""One training run: Lightning, optimizers, schedules, trackers."""
