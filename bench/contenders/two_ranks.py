"""Two processes of one thread each, DDP between them: the product's run, or Lightning with little else."""

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from _harness import ROOT, Cell, Pace
from contenders import ours

OVERRIDES = ("trainer=ddp", "trainer.devices=2", "trainer.threads=1", "trainer.accelerator=cpu")


class _Unheld(Pace):
    """Of the second rank, which goes on whenever the first one does."""

    def __init__(self) -> None:
        pass

    def step_done(self) -> None:
        pass

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function


def train(cell: Cell, pace: Pace, plain: bool = False) -> None:
    """``plain``: Lightning, with our model, optimizer, data and strategy, and nothing else of ours."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    rank = 1 if os.fork() == 0 else 0
    if rank == 1:
        from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

        _prctl_pr_set_pdeathsig(signal.SIGKILL)
        pace = _Unheld()
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "bench",
    }
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    if plain:
        _plain(cell, pace)
    else:
        ours.train(cell, pace, overrides=OVERRIDES)


def _plain(cell: Cell, pace: Pace) -> None:
    from redline.data import open_corpus
    from redline.data.datamodule import TokenData
    from redline.training.build import build_module
    from redline.training.precision import precision_plugin
    from redline.training.strategies import ddp

    cfg = ours.composed(cell, overrides=OVERRIDES)
    dist.init_process_group("gloo")
    whole = build_module(cfg)

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = whole.model

        def training_step(self, tokens_BS: torch.Tensor, batch_idx: int) -> torch.Tensor:
            logits_BTV = self.model(tokens_BS[:, :-1]).float()
            return torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BS[:, 1:].flatten())

        def configure_optimizers(self) -> Any:
            return whole.configure_optimizers()

    class Paced(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            pace.step_done()

    data = TokenData(
        open_corpus(cfg), cell.sequence_length, cell.batch_size, 1, cfg.seed, cfg.trainer.max_steps
    )
    precision = {"fp32": "fp32", "bf16": "bf16-mixed"}[cell.precision]
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=ddp(),
        plugins=[precision_plugin(precision, torch.device("cpu"))],
        gradient_clip_val=1.0 if cell.precision == "fp32" else None,
        max_steps=cfg.trainer.max_steps,
        callbacks=[Paced()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=ROOT / "mlruns",
    )
    trainer.fit(Module(), data)
