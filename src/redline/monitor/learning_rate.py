from redline.monitor.tap import Step, Tap


class LearningRate(Tap):
    """``train/lr``: the learning rate that the step is taken with."""

    def before_update(self, step: Step) -> None:
        self.values["train/lr"] = float(step.optimizer.param_groups[0]["lr"])
