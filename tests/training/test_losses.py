"""The terms of the training loss, against formulas written out and torch's own."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from training_helpers import hand_written, train

from redline import metrics
from redline.errors import UserError
from redline.training.build import build_module, build_terms
from redline.training.check import check
from redline.training.losses import AttentionEntropy, CrossEntropy, MuLoss, Prediction, ZLoss

B, T, V = 2, 5, 7


def prediction(model=None):
    generator = torch.Generator().manual_seed(0)
    logits_BTV = torch.randn(B, T, V, generator=generator) * 3
    targets_BT = torch.randint(V, (B, T), generator=generator)
    return Prediction(
        model, logits_BTV, targets_BT, F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
    )


def test_cross_entropy_without_smoothing_is_the_plain_one():
    its = prediction()
    assert CrossEntropy(0.0)(its) is its.cross_entropy


def test_label_smoothing_spreads_a_share_of_the_target_over_the_vocabulary():
    its, share = prediction(), 0.1
    log_p = its.logits_BTV.double() - its.logits_BTV.double().exp().sum(-1, keepdim=True).log()
    target = torch.full((B, T, V), share / V, dtype=torch.float64)
    target.scatter_add_(2, its.targets_BT[..., None], torch.full((B, T, 1), 1 - share, dtype=torch.float64))
    expected = -(target * log_p).sum(-1).mean()
    assert CrossEntropy(share)(its).item() == pytest.approx(expected.item(), rel=1e-6)


def test_z_loss_is_the_mean_square_of_the_log_of_the_denominator():
    its = prediction()
    rows = its.logits_BTV.double().reshape(-1, V).tolist()
    squares = [math.log(sum(math.exp(logit) for logit in row)) ** 2 for row in rows]
    assert ZLoss(1e-4)(its).item() == pytest.approx(1e-4 * sum(squares) / len(squares), rel=1e-5)


def test_mu_loss_is_the_squared_length_of_the_mean_output_embedding(run_cfg):
    model = build_module(run_cfg()).model
    weight_VD = model.head.weight.detach().double().numpy()
    expected = 1e-4 * (weight_VD.mean(0) ** 2).sum()
    assert MuLoss(1e-4)(prediction(model)).item() == pytest.approx(expected, rel=1e-4)


def entropies_by_hand(q_BHTK, k_BHTK, scale, queries):
    """(H,) nats, the mean over ``queries``, a list of (sequence, token)."""
    H, K = q_BHTK.shape[1], q_BHTK.shape[3]
    found = torch.zeros(H, dtype=torch.float64)
    for b, t in queries:
        for h in range(H):
            q, keys = q_BHTK[b, h, t].double(), k_BHTK[b, h, : t + 1].double()
            scores = [sum(float(q[i] * key[i]) for i in range(K)) * scale for key in keys]
            top = max(scores)
            weights = [math.exp(score - top) for score in scores]
            shares = [weight / sum(weights) for weight in weights]
            found[h] -= sum(share * math.log(share) for share in shares)
    return found / len(queries)


@pytest.mark.parametrize(("queries", "sequences"), [(None, None), (6, 2)])
def test_attention_entropy_holds_every_head_above_the_limit(run_cfg, queries, sequences):
    model = build_module(run_cfg("init.std=0.5")).model.train()
    seen = []
    for block in model.blocks:
        block.attention.inner.register_forward_pre_hook(
            lambda _, inputs: seen.append([x.detach() for x in inputs])
        )
    minimum, weight = 0.3, 0.7
    term = AttentionEntropy(weight, minimum, queries, sequences)
    term.attach(model)
    tokens_BT = torch.randint(64, (3, 8), generator=torch.Generator().manual_seed(1))
    model(tokens_BT)
    chosen = [(b, t) for b in range(3) for t in range(8)]
    if queries is not None:
        chosen = [(b, t) for b in range(2) for t in (3, 5, 7)]
    entropy_LH = torch.stack(
        [entropies_by_hand(q, k, model.blocks[0].attention.inner.scale, chosen) for q, k, *_ in seen]
    )
    assert (entropy_LH < minimum).any()
    assert (entropy_LH > minimum).any()
    expected = weight * (minimum - entropy_LH).clamp(min=0).mean()
    loss = term(prediction(model))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    assert all(block.attention.qkv.weight.grad.isfinite().all() for block in model.blocks)
    assert any(block.attention.qkv.weight.grad.abs().max() > 0 for block in model.blocks)


def test_the_entropys_gradient_is_finite_where_a_query_attends_to_nothing(run_cfg):
    model = build_module(run_cfg("norm=softpick")).model
    term = AttentionEntropy(0.1, 5.0, None, None)
    term.attach(model)
    model(torch.randint(64, (2, 8), generator=torch.Generator().manual_seed(1)))
    term(prediction(model)).backward()
    gradients = [block.attention.qkv.weight.grad for block in model.blocks]
    assert all(its.isfinite().all() and its.abs().max() > 0 for its in gradients)


def test_validation_leaves_nothing_for_the_next_step(run_cfg):
    model = build_module(run_cfg()).model
    term = AttentionEntropy(0.1, 0.5, None, None)
    term.attach(model)
    for mode in (model.train, model.eval, model.eval):
        mode()
        model(torch.zeros(2, 4, dtype=torch.int64))
    assert len(term._entropies) == len(model.blocks)


def test_terms_are_logged_apart_while_rules_and_validation_see_plain_cross_entropy(
    run_cfg, tmp_path, monkeypatch
):
    cfg = run_cfg("loss=[z_loss,mu_loss,label_smoothing]", "tracker=csv", "trainer.max_steps=3")
    logged = {}
    monkeypatch.setattr(CSVLogger, "log_metrics", lambda _, metrics, step: logged.update({step: metrics}))
    outcome, losses = train(cfg, tmp_path)
    plain = hand_written(run_cfg("trainer.max_steps=3"))
    assert losses[0] == pytest.approx(plain["loss"][0], rel=1e-5)
    assert outcome.val_loss == pytest.approx(plain["val_loss"], abs=0.05)
    names = {metrics.loss_term(name) for name in ("cross_entropy", "z_loss", "mu_loss")}
    assert names <= set(logged[0])
    assert logged[0]["loss/cross_entropy"] != pytest.approx(losses[0], abs=1e-6)  # the smoothed one


def test_the_gradient_is_of_the_sum(run_cfg):
    module = build_module(
        run_cfg("loss=[z_loss,mu_loss]", "loss.z_loss.weight=0.1", "loss.mu_loss.weight=10")
    )
    tokens_BS = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(1))
    module.training_step(tokens_BS, 0).backward()
    head = module.model.head.weight
    logits_BTV = module.model(tokens_BS[:, :-1])
    expected = (
        F.cross_entropy(logits_BTV.flatten(0, 1), tokens_BS[:, 1:].flatten())
        + 0.1 * logits_BTV.logsumexp(-1).square().mean()
        + 10 * head.mean(0).square().sum()
    )
    (gradient,) = torch.autograd.grad(expected, head)
    torch.testing.assert_close(head.grad, gradient)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.cross_entropy=null", "loss: has no term"),
        ("loss.cross_entropy.label_smoothing=1", "loss.cross_entropy.label_smoothing=1: allowed"),
        ("+loss.other={_target_: torch.nn.MSELoss}", "loss.other._target_=torch.nn.MSELoss: allowed"),
    ],
)
def test_a_term_that_cannot_work_is_refused(run_cfg, override, message):
    with pytest.raises(UserError) as refused:
        check(run_cfg(override))
    assert str(refused.value).startswith(message)
    assert build_terms(run_cfg("loss=attention_entropy")).keys() == {"cross_entropy", "attention_entropy"}


def test_token_dropout_zeroes_whole_embeddings_in_training_only(run_cfg):
    model = build_module(run_cfg("model.token_dropout=0.5")).model
    passed = []
    model.positions.embed = lambda x_BTD: passed.append(x_BTD.detach()) or x_BTD
    tokens_BT = torch.randint(64, (16, 8), generator=torch.Generator().manual_seed(1))
    embedded = model.embedding(tokens_BT).detach()
    for mode in (model.train, model.eval):
        mode()
        model(tokens_BT)
    zero = (passed[0] == 0).all(-1)
    assert 0.3 < zero.float().mean() < 0.7
    torch.testing.assert_close(passed[0][~zero], embedded[~zero])
    torch.testing.assert_close(passed[1], embedded)


def test_each_dropout_acts_in_its_place(run_cfg):
    def share_of_zeros(key):
        model = build_module(run_cfg(f"model.{key}=0.5")).model.train()
        seen = {}
        model.embedding_dropout.register_forward_hook(lambda *its: seen.update(embedding=its[-1]))
        model.blocks[0].dropout.register_forward_hook(lambda *its: seen.update(branch=its[-1]))
        model(torch.zeros(2, 8, dtype=torch.int64))
        return {place: (x == 0).float().mean().item() for place, x in seen.items()}

    assert share_of_zeros("embedding_dropout")["embedding"] == pytest.approx(0.5, abs=0.15)
    assert share_of_zeros("embedding_dropout")["branch"] < 0.1
    assert share_of_zeros("dropout")["branch"] == pytest.approx(0.5, abs=0.15)
    assert run_cfg("model.dropout=0.5").model.attention_dropout == 0.5
    assert run_cfg("model.dropout=0.5", "model.attention_dropout=0").model.attention_dropout == 0
