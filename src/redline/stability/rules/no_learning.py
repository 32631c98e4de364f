import math

from redline.stability.rules.base import EndRule


class NoLearning(EndRule):
    """The validation loss is not below the unigram entropy: the model ignores its context."""

    def broken_by(self, val_loss: float, unigram_entropy: float) -> bool:
        return math.isnan(val_loss) or val_loss >= unigram_entropy
