class RunningMean:
    """An exponential mean without the bias of its start (Kingma & Ba 2015, section 3)."""

    def __init__(self, smoothing: float) -> None:
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing={smoothing}: allowed: from 0 to below 1")
        self.smoothing = smoothing
        self.total = 0.0
        self.weight = 0.0

    def update(self, value: float) -> float:
        self.total = self.smoothing * self.total + (1 - self.smoothing) * value
        self.weight = self.smoothing * self.weight + (1 - self.smoothing)
        return self.total / self.weight
