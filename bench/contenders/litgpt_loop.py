"""litgpt's model, in a bare loop: faster than its own, which also logs and measures throughput."""

from _harness import Cell, Pace
from contenders.bare_loop import train_bare


def train(cell: Cell, pace: Pace) -> None:
    from litgpt import GPT, Config

    config = Config(
        block_size=cell.sequence_length,
        vocab_size=cell.vocab_size,
        padded_vocab_size=cell.vocab_size,
        n_layer=cell.num_layers,
        n_head=cell.num_heads,
        n_embd=cell.width,
        intermediate_size=4 * cell.width,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="LayerNorm",
        mlp_class_name="GptNeoxMLP",
        gelu_approximate="none",
    )
    train_bare(GPT(config), cell, pace)
