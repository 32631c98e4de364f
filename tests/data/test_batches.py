import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.data.batches import train_batch, val_batches
from redline.errors import UserError

TOKENS = np.random.default_rng(0).integers(1000, size=20_000).astype(np.uint16)


def test_a_training_batch_depends_on_seed_and_step_and_on_nothing_else() -> None:
    first = train_batch(TOKENS, 8, 4, seed=0, step=5)
    np.random.seed(1)
    train_batch(TOKENS, 8, 4, seed=0, step=6)

    np.testing.assert_array_equal(train_batch(TOKENS, 8, 4, seed=0, step=5), first)
    others = [train_batch(TOKENS, 8, 4, seed, step) for seed, step in [(0, 6), (1, 5), (5, 0)]]
    assert all(not np.array_equal(other, first) for other in others)


@given(
    length=st.integers(1, 30),
    batch_size=st.integers(1, 8),
    spare=st.integers(0, 100),
    seed=st.integers(0, 2**32 - 1),
    step=st.integers(0, 10**6),
    dtype=st.sampled_from([np.uint16, np.uint32]),
)
def test_training_windows_lie_inside_the_tokens(
    length: int, batch_size: int, spare: int, seed: int, step: int, dtype: type
) -> None:
    tokens = np.arange(batch_size * (length + 1) + spare, dtype=dtype)  # each token is its position

    batch = train_batch(tokens, length, batch_size, seed, step)

    assert batch.shape == (batch_size, length + 1)
    assert batch.dtype == np.int64
    assert (np.diff(batch, axis=1) == 1).all()
    assert batch.max() < len(tokens)


@pytest.mark.parametrize(("accumulate", "world"), [(1, 1), (3, 1), (1, 4), (2, 3)])
def test_micro_steps_and_ranks_share_out_a_steps_batch(accumulate: int, world: int) -> None:
    parts = [
        train_batch(TOKENS, 8, 12, 0, 5, micro_step, rank, accumulate=accumulate, world=world)
        for micro_step in range(accumulate)
        for rank in range(world)
    ]
    assert {len(part) for part in parts} == {12 // accumulate // world}
    np.testing.assert_array_equal(np.concatenate(parts), train_batch(TOKENS, 8, 12, 0, 5))


def test_every_window_can_be_drawn_also_the_first_and_the_last() -> None:
    tokens = np.arange(6, dtype=np.uint16)
    starts = {int(train_batch(tokens, 2, 1, seed=0, step=step)[0, 0]) for step in range(200)}

    assert starts == {0, 1, 2, 3}


@given(
    length=st.integers(1, 30),
    batch_size=st.integers(1, 8),
    count=st.integers(1, 6),
    spare=st.integers(0, 2000),
)
def test_validation_windows_do_not_overlap_and_span_all_tokens(
    length: int, batch_size: int, count: int, spare: int
) -> None:
    tokens = np.arange(batch_size * (length + 1) + spare, dtype=np.uint16)

    batches = list(val_batches(tokens, length, batch_size, count))

    fit = len(tokens) // (batch_size * (length + 1))
    assert len(batches) == min(count, fit)
    windows = np.concatenate(batches)
    assert windows.shape[1] == length + 1
    assert windows.dtype == np.int64
    assert (np.diff(windows, axis=1) == 1).all()
    gaps = windows[1:, 0] - windows[:-1, -1]
    assert (gaps >= 1).all()
    if len(windows) > 1:
        assert windows[0, 0] == 0
        assert windows[-1, -1] == len(tokens) - 1
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("part", ["training", "validation"])
def test_fewer_tokens_than_a_batch_are_the_users_mistake(part: str) -> None:
    batch = {
        "training": lambda tokens: train_batch(tokens, 9, 4, seed=0, step=0),
        "validation": lambda tokens: val_batches(tokens, 9, 4, count=1),
    }[part]
    batch(TOKENS[:40])

    with pytest.raises(UserError) as error:
        batch(TOKENS[:39])

    message = str(error.value)
    assert "\n" not in message
    assert "data.batch_size=4" in message
    assert "data.sequence_length=9" in message
    assert "data.path" in message
    assert f"needs 40 tokens, the {part} part has 39" in message


def test_what_a_batch_costs_does_not_hang_on_how_many_tokens_there_are() -> None:
    """By what it allocates: nothing as long as the corpus."""
    peaks = []
    for count in (20_000, 20_000_000):
        tokens = np.zeros(count, dtype=np.uint16)
        train_batch(tokens, 64, 16, seed=0, step=0)
        tracemalloc.start()
        train_batch(tokens, 64, 16, seed=0, step=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert max(peaks) < 20 * 16 * 65 * 8  # bytes; the batch itself is a twentieth
