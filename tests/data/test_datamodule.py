import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from redline.data.batches import train_batch, val_batches
from redline.data.datamodule import TokenData
from redline.data.token_cache import TokenCorpus


class Recorder(LightningModule):
    """Keeps the batches it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.trained: list[Tensor] = []
        self.validated: list[Tensor] = []

    def training_step(self, batch: Tensor) -> Tensor:
        self.trained.append(batch)
        return self.weight * batch.float().mean()

    def validation_step(self, batch: Tensor) -> None:
        self.validated.append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def data(tokens: TokenCorpus, seed: int = 3, max_steps: int = 10) -> TokenData:
    return TokenData(tokens, sequence_length=8, batch_size=4, val_batches=3, seed=seed, max_steps=max_steps)


def trainer(folder: Path, max_steps: int = 10, **changes: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        default_root_dir=folder,
        **({"enable_checkpointing": False, "num_sanity_val_steps": 0} | quiet | changes),
    )


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


@pytest.fixture
def uninterrupted(tokens: TokenCorpus, tmp_path: Path) -> Recorder:
    module = Recorder()
    trainer(tmp_path).fit(module, data(tokens))
    return module


def test_a_run_sees_the_batches_of_its_seed_in_order(tokens: TokenCorpus, uninterrupted: Recorder) -> None:
    expected = [torch.from_numpy(train_batch(tokens.train, 8, 4, 3, step)) for step in range(10)]

    assert equal(uninterrupted.trained, expected)
    assert uninterrupted.trained[0].shape == (4, 9)
    assert uninterrupted.trained[0].dtype == torch.int64


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
@pytest.mark.parametrize("saved_by", ["trainer", "callback"])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(
    tokens: TokenCorpus, tmp_path: Path, uninterrupted: Recorder, saved_by: str
) -> None:
    before, after = Recorder(), Recorder()
    path = tmp_path / "saved" / "stopped.ckpt"
    if saved_by == "trainer":  # a run that ended at step 4
        first = trainer(tmp_path, max_steps=4)
        first.fit(before, data(tokens))
        first.save_checkpoint(path)
    else:  # one stopped on its way, saved at step 4
        saving = ModelCheckpoint(path.parent, "stopped", every_n_train_steps=4, save_top_k=1)
        first = trainer(tmp_path, callbacks=[saving], enable_checkpointing=True, max_steps=5)
        first.fit(before, data(tokens))
        before.trained = before.trained[:4]
    resumed = trainer(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(resum|dataloader).*")
        resumed.fit(after, data(tokens), ckpt_path=path, weights_only=False)

    assert resumed.global_step == 10
    assert equal(before.trained + after.trained, uninterrupted.trained)
    assert torch.equal(after.weight, uninterrupted.weight)


def test_a_finished_run_can_be_opened_again(tokens: TokenCorpus, tmp_path: Path) -> None:
    first, again = trainer(tmp_path), Recorder()
    first.fit(Recorder(), data(tokens))
    first.save_checkpoint(tmp_path / "end.ckpt")
    trainer(tmp_path).fit(again, data(tokens), ckpt_path=tmp_path / "end.ckpt", weights_only=False)

    assert again.trained == []


def test_every_validation_sees_the_same_batches_whatever_the_seed(
    tokens: TokenCorpus, tmp_path: Path
) -> None:
    expected = [torch.from_numpy(batch) for batch in val_batches(tokens.val, 8, 4, 3)]
    module = Recorder()
    trainer(tmp_path, val_check_interval=5, check_val_every_n_epoch=None).fit(module, data(tokens))
    assert equal(module.validated, expected * 2)

    other = Recorder()
    trainer(tmp_path).validate(other, data(tokens, seed=4), verbose=False)
    assert equal(other.validated, expected)


def test_lightning_takes_the_loaders_without_a_word(tokens: TokenCorpus, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        trainer(tmp_path, num_sanity_val_steps=1).fit(Recorder(), data(tokens))


def test_without_a_trainer_batches_start_at_step_zero(tokens: TokenCorpus, uninterrupted: Recorder) -> None:
    assert equal(list(data(tokens).train_dataloader()), uninterrupted.trained)


def test_a_trainer_with_more_steps_than_batches_is_refused(tokens: TokenCorpus, tmp_path: Path) -> None:
    for max_steps in (11, -1):
        with pytest.raises(AssertionError, match="more steps than batches"):
            trainer(tmp_path, max_steps, max_epochs=1).fit(Recorder(), data(tokens))
