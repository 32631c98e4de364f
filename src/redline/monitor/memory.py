import resource
import sys

import torch

from redline.model import MappedModel
from redline.monitor.tap import Step, Tap

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


class Memory(Tap):
    """``train/memory_gib``: the most memory held so far, in GiB; on a GPU what torch's tensors took there,
    else what the process took. Of several ranks the one with most.
    """

    across = "max"

    def attach(self, model: MappedModel) -> None:
        self.device = next(model.parameters()).device

    def after_update(self, step: Step) -> None:
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
        self.values["train/memory_gib"] = torch.tensor(peak / 2**30, device=self.device)
