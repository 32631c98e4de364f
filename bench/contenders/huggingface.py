"""Hugging Face Trainer with GPT-2, logging every tenth step (to nowhere).

GPT-2's own tied head and learned positions stay: both make its step cheaper than ours. Its default GELU,
an approximation that is slow on a CPU, does not.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from _harness import Cell, Pace


class RandomTokens(Dataset):
    """So many sequences that no run comes to the end of an epoch."""

    def __init__(self, cell: Cell) -> None:
        self.sequence_length = cell.sequence_length
        self.tokens_N = torch.randint(cell.vocab_size, (1_000_000,))

    def __len__(self) -> int:
        return len(self.tokens_N) - self.sequence_length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens_T = self.tokens_N[index : index + self.sequence_length]
        return {"input_ids": tokens_T, "labels": tokens_T}


def train(cell: Cell, pace: Pace) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    class StepDone(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            pace.step_done()

    config = GPT2Config(
        vocab_size=cell.vocab_size,
        n_positions=cell.sequence_length,
        n_embd=cell.width,
        n_layer=cell.num_layers,
        n_head=cell.num_heads,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    settings = TrainingArguments(
        output_dir="huggingface",
        per_device_train_batch_size=cell.batch_size,
        max_steps=1_000_000,
        learning_rate=3e-4,
        adam_beta2=0.95,
        weight_decay=0.1,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=cell.precision == "bf16",
        use_cpu=True,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        GPT2LMHeadModel(config), settings, train_dataset=RandomTokens(cell), callbacks=[StepDone()]
    )
    trainer.train()
