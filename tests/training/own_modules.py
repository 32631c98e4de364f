"""A small classifier and its data, as users write them: all but one know nothing of this project."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from redline.model import Layer, Output, SiteMap

SIZE, VAL = 96, 64


def examples(seed: int, count: int) -> TensorDataset:
    """Points of four classes, from a fixed mixture."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(4, (count,), generator=generator)
    return TensorDataset(centres[labels] + torch.randn(count, 8, generator=generator), labels)


class Jittered(Dataset[tuple[Tensor, Tensor]]):
    """Draws from every generator there is as an example is made."""

    def __init__(self) -> None:
        self.its = examples(0, SIZE)

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.its[index]
        return x + 0.1 * torch.randn(8) + 0.1 * np.random.randn() + 0.1 * random.random(), y


class Points(L.LightningDataModule):
    def __init__(self, batch_size: int = 12, drop_last: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> Any:
        its = self.hparams
        return DataLoader(Jittered(), its["batch_size"], shuffle=True, drop_last=its["drop_last"])

    def val_dataloader(self) -> Any:
        return DataLoader(examples(2, VAL), 32)


class AllAtOnce(Points):
    """One step an epoch, the same each time."""

    def __init__(self, parts: int = 1) -> None:
        super().__init__()
        self.parts = parts

    def train_dataloader(self) -> Any:
        return DataLoader(examples(0, SIZE), SIZE // self.parts)


class Groups(L.LightningModule):
    """Two parameter groups, one at a tenth of the other's LR, under a schedule by epochs."""

    def __init__(self, width: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 4))
        self.used: list[list[float]] = []  # LRs, by step and group

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return {"loss": F.cross_entropy(self.net(x), y)}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self.net(x)
        self.log("val_loss", F.cross_entropy(logits, y))
        self.log("val_accuracy", (logits.argmax(-1) == y).float().mean())

    def configure_optimizers(self) -> Any:
        first, last = self.net[0].parameters(), self.net[3].parameters()
        optimizer = torch.optim.SGD([{"params": first}, {"params": last, "lr": 0.02}], lr=0.2, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.used.append([group["lr"] for group in optimizer.param_groups])


class Named(Groups):
    """Takes its LR, or its optimizer, as an argument."""

    def __init__(self, optimizer: Any = torch.optim.SGD, learning_rate: float = 0.1) -> None:
        super().__init__()
        self.optimizer, self.learning_rate = optimizer, learning_rate
        self.save_hyperparameters()

    def configure_optimizers(self) -> Any:
        if isinstance(self.optimizer, type):
            return self.optimizer(self.parameters(), lr=self.learning_rate)
        return self.optimizer(self.parameters())


class Mapped(Groups):
    """Of sequences, and names its parts."""

    @property
    def site_map(self) -> SiteMap:
        first, last = self.net[0], self.net[3]
        return SiteMap([Layer(self.net, {"fc1": Output((first,)), "fc2": Output((last,))})])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return F.cross_entropy(self.net(x[:, None].expand(-1, 3, -1)).mean(1), y)


class OneCycle(Groups):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.03, total_steps=20)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class NoLoss(Groups):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None


class NoOptimizer(Groups):
    def configure_optimizers(self) -> Any:
        return None


class Raises(Groups):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        raise ValueError("a mistake of mine")
