"""How the devices of a run share its work, and the processes that they are: ranks, one a device."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from omegaconf import DictConfig
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from redline import over_ranks
from redline.errors import UserError
from redline.model import MappedModel
from redline.parts import Kind, find_part, returns
from redline.training.checkpoints.io import read_sharded

_STRATEGY = Kind("a Lightning strategy, or a function that returns one", returns(Strategy))


def ddp() -> DDPStrategy:
    """Each rank has the whole model; gradients are averaged (Li et al. 2020, arXiv 2006.15704)."""
    # Buffers follow from weights, but for statistics of a batch, which are rank 0's where they count.
    return DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)


class FullyShard(ModelParallelStrategy):
    """Each rank has a part of every weight, of its gradient and of the optimizer's state, and gathers a block
    while it computes it (FSDP: Zhao et al. 2023, arXiv 2304.11277; this is torch's FSDP2).
    """

    def __init__(self) -> None:
        super().__init__(data_parallel_size=over_ranks.size(), tensor_parallel_size=1)

    def shard(self, model: MappedModel) -> None:
        """``model`` has its initial weights, the same on all ranks. Once is enough."""
        from torch.distributed.fsdp import FSDPModule, fully_shard

        if isinstance(model, FSDPModule):
            return
        mesh = self.device_mesh["data_parallel"]
        blocks = [layer.block for layer in model.site_map.layers]
        inside = tuple(f"{name}." for name, module in model.named_modules() if module in blocks)
        names = model.named_parameters(remove_duplicate=False)
        # Also what a block may reach, such as learned positions: the root gathers it.
        outside = {its for name, its in names if not name.startswith(inside)}
        for block in blocks:
            fully_shard(block, mesh=mesh, ignored_params=outside)
        fully_shard(model, mesh=mesh)

    # A checkpoint is what any other strategy would make of it, with parts instead of whole tensors.
    def lightning_module_state_dict(self) -> dict[str, Any]:
        return Strategy.lightning_module_state_dict(self)

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        Strategy.load_model_state_dict(self, checkpoint, strict)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return Strategy.optimizer_state(self, optimizer)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        Strategy.load_optimizer_state_dict(self, checkpoint)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        self.checkpoint_io.save_checkpoint(checkpoint, filepath)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        if not Path(checkpoint_path).is_dir():
            raise UserError(
                f"trainer.resume={checkpoint_path}: of a run whose ranks had whole tensors; allowed with "
                "trainer=fsdp: a checkpoint of trainer=fsdp"
            )
        return read_sharded(Path(checkpoint_path), self.device_mesh["data_parallel"])

    def teardown(self) -> None:
        super().teardown()
        self.checkpoint_io.teardown()


def check_shards(model: MappedModel, precision: str) -> None:
    """Raise UserError for a model that cannot be fully sharded, or would not be the same."""
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            raise UserError(
                f"trainer.strategy: norm_strategy.linear makes the weight of {name} anew, which needs all of "
                "it; allowed: trainer=ddp, or norm_strategy.linear=null"
            )
    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            raise UserError(
                f"trainer.strategy: {name} is a single number, which cannot be sharded; allowed: trainer=ddp"
            )


def strategy_of(cfg: DictConfig) -> Strategy | None:
    """None for one device by itself. Raises UserError."""
    devices = cfg.trainer.devices * cfg.trainer.num_nodes
    if cfg.trainer.strategy is None:
        if devices > 1:
            raise UserError(
                f"trainer.devices={cfg.trainer.devices}, trainer.num_nodes={cfg.trainer.num_nodes}: nothing "
                "says how they share the work; allowed: with trainer=ddp or trainer=fsdp"
            )
        return None
    strategy: Strategy = find_part("trainer.strategy", cfg.trainer.strategy, _STRATEGY)()
    return strategy


class _Alone(LightningEnvironment):
    """One device: Lightning is not to look for others, nor to start them."""

    creates_processes_externally = True


def environment_of(cfg: DictConfig) -> list[ClusterEnvironment]:
    """Plugins for the trainer: a job of a cluster may have more tasks than a run on one device is of."""
    return [_Alone()] if cfg.trainer.devices * cfg.trainer.num_nodes == 1 else []


@contextmanager
def ranks(cfg: DictConfig, device: torch.device) -> Iterator[None]:
    """Within, the ranks of ``cfg`` reach each other: those that the environment names, as torch's launcher
    sets it, or where one device has a strategy this process alone. A rank that does not answer within
    ``trainer.rank_timeout`` is an exception.
    """
    if cfg.trainer.strategy is None or dist.is_initialized():
        yield
        return
    backend, timeout = "gloo", timedelta(seconds=cfg.trainer.rank_timeout)
    here = None
    if device.type == "cuda":
        # Both: checkpoints are agreed on beside the training.
        backend, here = "cpu:gloo,cuda:nccl", torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(here)
    alone: dict[str, Any] = {}
    if cfg.trainer.devices * cfg.trainer.num_nodes == 1:
        alone = {"world_size": 1, "rank": 0, "store": dist.HashStore()}
    dist.init_process_group(backend, timeout=timeout, device_id=here, **alone)
    try:
        yield
    finally:
        dist.destroy_process_group()
