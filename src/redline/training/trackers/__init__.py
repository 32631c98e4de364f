"""Where a run's curves go: the trackers of ``conf/tracker/``, any number at once."""

from redline.training.trackers.build import build_trackers, check_trackers
from redline.training.trackers.tracked_run import TrackedRun, new_run_key
from redline.training.trackers.trackers import Trackers

__all__ = ["TrackedRun", "Trackers", "build_trackers", "check_trackers", "new_run_key"]
