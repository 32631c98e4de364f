"""A run's training loss in equal parts of its length, by which runs are compared."""

import math
from bisect import bisect_left

WINDOWS = 50  # of a run: enough to see where a loss turns, few enough to be stored one by one


def window_ends(max_steps: int | None) -> tuple[int, ...]:
    """The last step (counted from 0) of each window; none where the run's length is not known.

    Window i holds the steps s with floor(s * WINDOWS / max_steps) == i. In a run of fewer steps than that
    each step is a window.
    """
    if max_steps is None:
        return ()
    count = min(WINDOWS, max_steps)
    return tuple(-(-(window + 1) * max_steps // count) - 1 for window in range(count))


class Windows:
    """The mean loss of each window that is complete: its last step, or a later one, was reported.

    A window without a report repeats the one before; those before the first report repeat the first one
    with a report. The means end before the first that is not finite.
    """

    def __init__(self, max_steps: int | None) -> None:
        self.means: tuple[float, ...] = ()
        self._ends = window_ends(max_steps)
        self._open = 0  # the window that the next two are of
        self._total, self._reports = 0.0, 0

    def add(self, step: int, loss: float) -> None:
        """Take in a step's loss. Steps grow."""
        window = bisect_left(self._ends, step)
        if window > self._open:
            self._close(until=window)
        self._total += loss
        self._reports += 1
        if step in self._ends[window : window + 1]:
            self._close(until=window + 1)

    def _close(self, until: int) -> None:
        """Complete the windows before this one, which is open from now on."""
        known = self._total / self._reports if self._reports else self.means[-1] if self.means else None
        self._open, self._total, self._reports = until, 0.0, 0
        if known is not None and math.isfinite(known):
            self.means += (known,) * (until - len(self.means))
        elif known is not None:
            self._ends = self._ends[: len(self.means)]
