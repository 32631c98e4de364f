import time

from redline.monitor.tap import Step, Tap


class Throughput(Tap):
    """``train/tokens_per_second``, over the time since the reading before; so the first one gives none.

    On a GPU the host runs a few steps ahead: a reading is off by what it is ahead more or less than before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last: tuple[int, float] | None = None  # step, seconds

    def after_update(self, step: Step) -> None:
        now = time.perf_counter()
        if self.last is not None:
            number, then = self.last
            self.values["train/tokens_per_second"] = step.tokens * (step.number - number) / (now - then)
        self.last = step.number, now
