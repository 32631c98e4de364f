"""The callback in a run of Hugging Face's Trainer, against the Trainer's own log."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_watch import Remembers

import redline

_OFF = {"blow_up": None, "no_return": None}  # what a loss of random tokens does in six steps


def trainer(transformers: Any, folder: Path, callback: Any, lr: float, parts: int) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=32, max_position_embeddings=16, **shape)
    tokens = torch.randint(32, (64, 16))
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=6,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=parts,
        learning_rate=lr,
        lr_scheduler_type="constant",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        max_grad_norm=0,
    )
    return transformers.Trainer(
        model=transformers.LlamaForCausalLM(config),
        args=arguments,
        train_dataset=[{"input_ids": its, "labels": its} for its in tokens],
        callbacks=[callback],
    )


@pytest.mark.parametrize("parts", [1, 2])
def test_it_reports_what_the_trainer_logs(peers: Any, tmp_path: Path, parts: int) -> None:
    from redline.watching.trainer_callback import RedlineCallback

    told = Remembers()
    its = trainer(peers, tmp_path, RedlineCallback(every=3, divergence=_OFF, loggers=[told]), 0.01, parts)
    its.train()
    logged = [entry for entry in its.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in logged] == [step + 1 for step in told.metrics] == list(range(1, 7))
    for entry in logged:
        seen = told.metrics[entry["step"] - 1]
        assert seen["train/loss"] == pytest.approx(float(entry["loss"]), abs=1e-4)
        assert seen["train/grad_norm"] == pytest.approx(float(entry["grad_norm"]), rel=1e-4)
    assert "norm/model_layers_self_attn_q_proj/layer_01" in told.metrics[3]
    assert told.tags["verdict"] == "stable"


def test_it_ends_a_run_that_has_diverged(peers: Any, tmp_path: Path) -> None:
    from redline.watching.trainer_callback import RedlineCallback

    told = Remembers()
    its = trainer(peers, tmp_path, RedlineCallback(loggers=[told]), 1e30, 1)
    its.train()
    assert its.state.global_step < 6
    assert told.tags["reason"] == "non_finite"
    its = trainer(peers, tmp_path, RedlineCallback(stop=False, loggers=[told]), 1e30, 1)
    its.train()
    assert its.state.global_step == 6


def test_a_model_without_a_loss_is_told(peers: Any, tmp_path: Path) -> None:
    from redline.watching.trainer_callback import RedlineCallback

    its = trainer(peers, tmp_path, RedlineCallback(loggers=[]), 0.01, 1)
    its.args.label_smoothing_factor = 0.1
    its.label_smoother = peers.trainer_pt_utils.LabelSmoother(0.1)
    with pytest.raises(redline.UserError, match="the model returns no loss"):
        its.train()
