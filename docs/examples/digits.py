"""A small vision model and its data, as a project of one's own has them. Nothing here is of Redline."""

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Digits(L.LightningDataModule):
    def __init__(self, batch_size: int = 64):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage):
        pixels, labels = load_digits(return_X_y=True)
        images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        train, val = order[:1500], order[1500:]
        self.train = TensorDataset(images[train], torch.tensor(labels)[train])
        self.val = TensorDataset(images[val], torch.tensor(labels)[val])

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, 297)


class Classifier(L.LightningModule):
    def __init__(self, width: int = 16, batch_norm: bool = False, lr: float = 0.1):
        super().__init__()
        self.lr = lr
        norm = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3), norm, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9 * width, 10)
        )

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        logits = self.net(images)
        self.log("val_loss", F.cross_entropy(logits, labels))
        self.log("val_accuracy", (logits.argmax(-1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)
