"""The checkpoint of a run: how it is written and read, and whether a run may go on from it."""

from redline.training.checkpoints.io import AtomicCheckpointIO
from redline.training.checkpoints.run import (
    CHECKPOINT,
    RunCheckpoint,
    RunState,
    StepSeed,
    check_resume,
    checkpoint_to_resume,
)

__all__ = [
    "CHECKPOINT",
    "AtomicCheckpointIO",
    "RunCheckpoint",
    "RunState",
    "StepSeed",
    "check_resume",
    "checkpoint_to_resume",
]
