"""Hugging Face's Trainer, watched by a callback: one line is Redline's."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from redline.watching.trainer_callback import RedlineCallback

torch.manual_seed(0)
shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=64, max_position_embeddings=32, **shape))
starts = torch.randint(64, (256, 1))
tokens = (starts + torch.arange(32)) % 64  # each counts up from its first
trainer = Trainer(
    model,
    TrainingArguments(
        output_dir="trainer",
        max_steps=40,
        per_device_train_batch_size=16,
        learning_rate=3e-3,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
    ),
    train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
    callbacks=[RedlineCallback(name="trainer")],
)
trainer.train()
