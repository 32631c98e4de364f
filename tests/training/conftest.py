import random
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 kB of words from a list of 60, so that a few steps learn something."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 8))) for _ in range(60)]
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(" ".join(draw.choices(words, k=17_000)))
    return path


@pytest.fixture(scope="session")
def run_cfg(composed: Callable[..., DictConfig], text: Path) -> Callable[..., DictConfig]:
    """A run of a second: overrides on top of `experiment=smoke`."""
    return lambda *overrides: composed(
        "experiment=smoke",
        "tracker=none",
        "data=text",
        f"data.path={text}",
        f"data.cache_dir={text.parent / 'tokens'}",
        "data.batch_size=4",
        "data.val_batches=3",
        "model.vocab_size=300",
        "model.sequence_length=16",
        "trainer.max_steps=12",
        "schedule.warmup_steps=5",
        "trainer.checkpoint_every=4",
        "trainer.precision=fp32",
        "trainer.accelerator=cpu",
        "trainer.threads=1",
        # A share of twelve steps would be two.
        "divergence.blow_up.patience=1",
        "divergence.no_return.patience=1",
        *overrides,
    )
