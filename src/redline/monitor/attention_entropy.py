"""How sharply heads attend: an entropy of zero is a head that looks at one token only."""

from redline.bounds import Count
from redline.model import MappedModel
from redline.model.attention import ScaledDotProduct
from redline.monitor.sampled_logits import Sample, check_sample, entropies, on_logits
from redline.monitor.tap import Tap


class AttentionEntropy(Tap):
    """``attention/entropy/layer_<l>/head_<h>`` in nats, the mean over the sampled queries: of what the site
    `softmax` gives, before the site `prob`, as shares of its sum. A query that attends to nothing counts 0.
    """

    def __init__(self, queries: Count, sequences: Count) -> None:
        super().__init__()
        check_sample(queries, sequences)
        self.queries, self.sequences = queries, sequences

    def attach(self, model: MappedModel) -> None:
        on_logits(self, model, self.queries, self.sequences, self._see)

    def _see(self, layer: int, inner: ScaledDotProduct, sample: Sample) -> None:
        for head, entropy in enumerate(entropies(inner, sample)):
            self.values[f"attention/entropy/layer_{layer:02d}/head_{head:02d}"] = entropy
