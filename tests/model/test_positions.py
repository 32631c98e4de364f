import torch

from redline.model.positions import Learned, Rope

BASE, HEADS, K, LENGTH = 100.0, 2, 6, 9


def rope():
    return Rope(LENGTH, HEADS * K, HEADS, BASE)


def test_rope_turns_each_pair_of_channels_by_its_angle():
    x_BHTK = torch.randn(3, HEADS, LENGTH, K)
    expected = torch.empty_like(x_BHTK)
    for t in range(LENGTH):
        for pair in range(K // 2):
            z = torch.complex(x_BHTK[:, :, t, pair], x_BHTK[:, :, t, pair + K // 2])
            z = z * torch.exp(torch.tensor(1j * t * BASE ** (-2 * pair / K)))
            expected[:, :, t, pair], expected[:, :, t, pair + K // 2] = z.real, z.imag
    torch.testing.assert_close(rope().rotate(x_BHTK), expected, rtol=1e-5, atol=1e-5)


def test_rope_makes_scores_depend_on_distance_alone():
    q_K, k_K = torch.randn(K), torch.randn(K)
    q_TK, k_TK = (rope().rotate(x.expand(1, 1, LENGTH, K))[0, 0] for x in (q_K, k_K))
    score_TT = q_TK @ k_TK.T
    diagonals = [score_TT.diagonal(offset) for offset in range(-LENGTH + 1, LENGTH)]
    for diagonal in diagonals:
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-5)
    assert len({round(diagonal[0].item(), 3) for diagonal in diagonals}) > LENGTH


def test_rope_takes_shorter_sequences_and_keeps_the_dtype_and_the_residual_stream():
    x_BHTK = torch.randn(1, HEADS, LENGTH, K)
    assert torch.equal(rope().rotate(x_BHTK[:, :, :4]), rope().rotate(x_BHTK)[:, :, :4])
    assert rope().rotate(x_BHTK.bfloat16()).dtype == torch.bfloat16
    x_BTD = torch.randn(1, 4, HEADS * K)
    assert torch.equal(rope().embed(x_BTD), x_BTD)


def test_learned_positions_add_a_row_per_token_and_turn_nothing():
    learned = Learned(LENGTH, HEADS * K, HEADS, BASE)
    x_BTD, x_BHTK = torch.randn(2, 4, HEADS * K), torch.randn(2, HEADS, 4, K)
    for t in range(4):
        assert torch.equal(learned.embed(x_BTD)[:, t], x_BTD[:, t] + learned.embedding.weight[t])
    assert torch.equal(learned.rotate(x_BHTK), x_BHTK)
