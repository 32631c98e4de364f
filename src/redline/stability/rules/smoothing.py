class RunningMean:
    """An exponential mean without the bias of its start (Kingma & Ba 2015, section 3).

    Each step keeps the share ``smoothing`` of it; a value stands for the steps since the one before it.
    """

    def __init__(self, smoothing: float) -> None:
        assert 0 <= smoothing < 1
        self.smoothing = smoothing
        self.total = 0.0
        self.weight = 0.0
        self.step: int | None = None

    def update(self, step: int, value: float) -> float:
        kept = self.smoothing if self.step is None else self.smoothing ** max(1, step - self.step)
        self.step = step
        self.total = kept * self.total + (1 - kept) * value
        self.weight = kept * self.weight + (1 - kept)
        return self.total / self.weight
