"""QK-clip: the weights of q and k after each optimizer step, beside arithmetic by hand and MuonClip's own."""

import copy
import math

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from pytorch_optimizer import MuonClip
from torch.utils.data import DataLoader
from training_helpers import Stopped, train

import redline.model.transforms.qk_clip as qk_clip_module
from redline.errors import UserError
from redline.metrics import CLIPPED_HEADS
from redline.model import named_parameters
from redline.model.attention import Attention
from redline.model.transforms.qk_clip import QKClip, largest_logits
from redline.training.build import build_module
from redline.training.check import check_parts
from redline.training.checkpoints import CHECKPOINT

TRUE = torch.tensor(True)


def module_of(run_cfg, tau, *overrides):
    return build_module(run_cfg("norm=qk_clip", f"norm_strategy.qk_weight.tau={tau}", *overrides))


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("at_once", [2**24, 2 * 3 * 7 * 2, 1])
def test_the_largest_logit_is_over_all_that_a_query_sees(monkeypatch, at_once):
    monkeypatch.setattr(qk_clip_module, "_AT_ONCE", at_once)
    B, H, T, K = 2, 3, 7, 4
    q, k = drawn(B, H, T, K), drawn(B, H, T, K) - 1
    k[:, :, -1] = 9 * q[:, :, 0]  # the first token would like the last one best
    mask_TT = torch.full((T, T), -math.inf).triu(1)
    seen = [
        [max(q[b, h, t] @ k[b, h, s] * 0.5 for b in range(B) for t in range(T) for s in range(t + 1))]
        for h in range(H)
    ]
    expected = torch.tensor(seen).flatten()
    torch.testing.assert_close(largest_logits(q, k, mask_TT, 0.5), expected)
    assert ((q @ k.transpose(2, 3) * 0.5).amax((0, 2, 3)) > expected).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(largest_logits(q, k, mask_TT, 0.5), expected)


def clip_of(largest, tau=100.0):
    clip = QKClip.__new__(QKClip)
    torch.nn.Module.__init__(clip)
    clip.num_heads, clip.tau, clip.largest_H = len(largest), tau, torch.tensor(largest)
    return clip


def attention_with(weight, heads):
    """One whose linear has this weight, of (3D,D)."""
    attention = Attention.__new__(Attention)
    torch.nn.Module.__init__(attention)
    attention.num_heads, attention.qkv = heads, torch.nn.Linear(*weight.shape[::-1], bias=False)
    attention.qkv.weight.data = weight
    return attention


def test_query_heads_that_share_a_key_head_are_clipped_to_their_limits_by_themselves():
    """Four query heads, two key heads: a logit of head h becomes tau / largest of it, whoever shares."""
    largest = [50.0, 400.0, 900.0, 100.0]
    q, k = drawn(5, 4, 2), drawn(5, 2, 2)
    before = torch.einsum("ihk,jhk->hij", q, k.repeat_interleave(2, 1))

    def scale(of_q_H, of_k_G):
        q.mul_(of_q_H[:, None])
        k.mul_(of_k_G[:, None])

    assert clip_of(largest).after_step(2, scale, TRUE).item() == 2
    after = torch.einsum("ihk,jhk->hij", q, k.repeat_interleave(2, 1))
    factor = torch.tensor([1.0, 100 / 400, 100 / 900, 1.0])
    torch.testing.assert_close(after, before * factor.view(-1, 1, 1))


def test_each_head_is_clipped_as_muon_clip_does_it():
    H, K, D = 4, 2, 8
    largest, weight = [50.0, 400.0, 100.0, 101.0], drawn(3 * D, D)
    theirs = [torch.nn.Parameter(part.clone()) for part in weight.split(D)]
    groups = [
        {"params": [part], "use_muon": True, "attention_name": "one", "qk_clip": role}
        for part, role in zip(theirs, ("query", "key"), strict=False)
    ]
    for part in theirs:
        part.grad = torch.zeros_like(part)
    optimizer = MuonClip(groups, lr=1e-30, qk_clip_threshold=100.0)  # it moves nothing by itself
    optimizer.step(attention_max_logits={"one": torch.tensor(largest)})
    expected = weight.clone()
    expected[:D].view(H, K, D)[1] *= 0.5  # sqrt(100 / 400)
    expected[D : 2 * D].view(H, K, D)[1] *= 0.5
    count = clip_of(largest).after_step(H, attention_with(weight, H).scale_heads, TRUE)
    assert count.item() == 2
    torch.testing.assert_close(weight, torch.cat([part.detach() for part in theirs]))
    torch.testing.assert_close(weight.view(3, H, K, D)[:, :3], expected.view(3, H, K, D)[:, :3])


@pytest.mark.parametrize(
    ("largest", "updated"), [([400.0], False), ([math.inf], True), ([math.nan], True), ([100.0], True)]
)
def test_nothing_is_clipped_in_a_step_that_was_skipped_or_for_a_logit_that_is_no_number(largest, updated):
    weight, clip = drawn(6, 2), clip_of(largest)
    before = weight.clone()
    scale = attention_with(weight, 1).scale_heads
    assert clip.after_step(1, scale, torch.tensor(updated)).item() == 0
    assert torch.equal(weight, before)
    assert clip.largest_H is None


def seen_by_hand(model, tokens_BT):
    """(L,H): each head's largest logit, from the weights and the activations before them."""
    found = []
    for block in model.blocks:
        inner, came = block.attention.inner, []
        handle = inner.register_forward_pre_hook(lambda _, inputs, came=came: came.append(inputs))
        model(tokens_BT)
        handle.remove()
        q, k, _, mask_TT = came[0]
        found.append((q @ k.transpose(2, 3) * inner.scale + mask_TT).amax((0, 2, 3)).detach())
    return torch.stack(found)


def fit(module, batches):
    trainer = L.Trainer(
        accelerator="cpu", max_steps=len(batches), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, DataLoader([*batches], batch_size=None))


def test_two_steps_are_those_of_a_loop_written_out(run_cfg):
    batches = torch.randint(64, (2, 4, 9), generator=torch.Generator().manual_seed(1))
    tau = seen_by_hand(module_of(run_cfg, 1.0).model, batches[0][:, :-1]).median().item()
    ours = module_of(run_cfg, tau)
    model = copy.deepcopy(ours).model
    for block in model.blocks:
        block.attention.qk_weight.eval()  # by hand below
    fit(ours, batches)
    optimizer = ours.make_optimizer(named_parameters(model), ours.lr)
    counts = []
    for step, tokens in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = ours.lr * ours.schedule(step)
        largest_LH = seen_by_hand(model, tokens[:, :-1])
        F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        counts.append((largest_LH > tau).sum().item())
        for block, largest_H in zip(model.blocks, largest_LH, strict=True):
            weight = block.attention.qkv.weight.data
            D, H = weight.shape[1], len(largest_H)
            for head, largest in enumerate(largest_H.tolist()):
                rows = slice(head * D // H, (head + 1) * D // H)
                for part in (weight[:D], weight[D : 2 * D]):
                    part[rows] *= math.sqrt(min(1.0, tau / largest)) if largest > 0 else 1.0
    assert 0 < counts[0] < largest_LH.numel()
    assert ours.clipped_heads.item() == counts[-1]
    for (name, weight), hand in zip(ours.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(weight, hand, rtol=1e-4, atol=1e-6, msg=name)


def test_what_it_clips_to_is_the_limit_of_the_same_weights(run_cfg):
    """With weights that the optimizer has not moved, the largest logit of the same batch is tau."""
    module = module_of(run_cfg, 1e-3)
    tokens_BT = torch.randint(64, (4, 8), generator=torch.Generator().manual_seed(1))
    first_H = seen_by_hand(module.model, tokens_BT)[0]
    block = module.model.blocks[0]
    block.attention.qk_weight.after_step(block.attention.num_heads, block.attention.scale_heads, TRUE)
    expected = first_H.clamp(max=1e-3)
    torch.testing.assert_close(seen_by_hand(module.model, tokens_BT)[0], expected, rtol=1e-4, atol=1e-8)


def test_the_largest_over_all_batches_since_the_last_step_counts_and_validation_does_not(run_cfg):
    model = module_of(run_cfg, 1.0).model
    clip = model.blocks[0].attention.qk_weight
    batches = torch.randint(64, (3, 4, 8), generator=torch.Generator().manual_seed(1))
    found = []
    for tokens_BT in batches:
        model.eval()(tokens_BT)
        assert clip.largest_H is None
        model.train()(tokens_BT)
        found.append(clip.largest_H)
        clip.largest_H = None
    for tokens_BT in batches:
        model(tokens_BT)
    assert torch.equal(clip.largest_H, torch.stack(found).amax(0))
    with torch.no_grad():
        model.blocks[0].attention.qkv.weight.mul_(10)
        model(batches[0])
    assert torch.equal(clip.largest_H, torch.stack(found).amax(0))


@pytest.mark.parametrize("skip", ["dropped", "overflowed"])
def test_a_step_that_changed_no_weight_clips_none(run_cfg, monkeypatch, skip):
    module = module_of(run_cfg, 1e-6)

    def no_gradients(*_, **__):
        module.grad_norm = torch.tensor(math.inf if skip == "overflowed" else 1.0)
        for weight in module.model.parameters():
            weight.grad = torch.zeros_like(weight) if skip == "overflowed" else None

    monkeypatch.setattr(module, "configure_gradient_clipping", no_gradients)
    before = module.model.blocks[0].attention.qkv.weight.detach().clone()
    fit(module, torch.zeros(1, 2, 5, dtype=torch.int64))
    after = module.model.blocks[0].attention.qkv.weight
    torch.testing.assert_close(after, before, rtol=1e-2, atol=0)  # decay alone
    assert module.clipped_heads.item() == 0


CLIPPING = ("norm=qk_clip", "norm_strategy.qk_weight.tau=0.05", "lr=0.1")


def test_a_resumed_run_is_the_same_and_the_heads_clipped_are_logged(run_cfg, tmp_path, monkeypatch):
    logged = {}
    monkeypatch.setattr(
        CSVLogger, "log_metrics", lambda _, metrics, step: logged.setdefault(step, {}).update(metrics)
    )
    cfg = run_cfg(*CLIPPING, "tracker=csv")
    train(cfg, tmp_path / "whole")
    counts = [logged[step][CLIPPED_HEADS] for step in range(12)]
    assert max(counts) > 0
    with pytest.raises(Stopped):
        train(cfg, tmp_path / "parts", stop_at=6)
    train(cfg, tmp_path / "parts")
    assert [logged[step][CLIPPED_HEADS] for step in range(12)] == counts
    a, b = (
        torch.load(tmp_path / folder / CHECKPOINT, weights_only=True)["state_dict"]
        for folder in ("whole", "parts")
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("transform", ["SigmaReparam", "UnitWeight"])
def test_a_weight_that_is_made_anew_cannot_be_clipped(run_cfg, transform):
    table = f"{{_target_:redline.model.transforms.{transform}}}"
    with pytest.raises(UserError) as refused:
        check_parts(run_cfg("norm=qk_clip", f"norm_strategy.linear={table}"))
    message = str(refused.value)
    assert message.startswith("norm_strategy.qk_weight: ")
    assert "norm_strategy.linear" in message
    assert "allowed: " in message
