"""Where a run's curves go: the trackers of ``conf/tracker/``, any number at once."""

from redline.training.trackers.build import build_trackers, check_trackers
from redline.training.trackers.trackers import TrackedRun, Trackers, new_run_key

__all__ = ["TrackedRun", "Trackers", "build_trackers", "check_trackers", "new_run_key"]
