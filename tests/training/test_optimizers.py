"""Each optimizer of conf/optimizer/ against its package's own, and groups of parameters by role and name."""

import copy
import io
import math
import sys
from functools import cache

import pytest
import pytorch_optimizer
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from training_helpers import ROOT, Stopped, train

from redline.data import open_corpus, val_batches
from redline.errors import UserError
from redline.model import Linear, Named, named_parameters
from redline.training.build import build_module
from redline.training.check import check, check_parts
from redline.training.checkpoints import CHECKPOINT
from redline.training.optimizers import decay_shares, optimizer_from
from redline.training.optimizers.joined import Joined

OPTIMIZERS = sorted(path.stem for path in (ROOT / "conf/optimizer").glob("*.yaml"))
COUPLED = ("sgd", "rmsprop")  # decay that goes through the gradient's way
LR = 0.05


@pytest.fixture(scope="module")
def spec(composed):
    """An optimizer of conf/ as plain values, with some of them changed."""

    @cache
    def plain(name):
        return OmegaConf.to_container(composed(f"optimizer={name}").optimizer, resolve=True)

    return lambda name, **changes: copy.deepcopy(plain(name)) | changes


class Quadratic:
    """Half the squared distance of four parameters, one of each role, from fixed targets."""

    def __init__(self):
        draw = torch.Generator().manual_seed(3)

        def weight(*shape):
            return nn.Parameter(torch.randn(shape, generator=draw))

        self.embedding, self.hidden, self.head, self.vector = (
            weight(5, 4),
            weight(6, 4),
            weight(5, 4),
            weight(4),
        )
        self.all = [self.embedding, self.hidden, self.head, self.vector]
        self.matrices = self.all[:3]
        self.targets = [torch.randn(its.shape, generator=draw) for its in self.all]
        self.named = [
            Named("embedding.weight", self.embedding, "embedding"),
            Named("blocks.0.attention.qkv.weight", self.hidden, "hidden", Linear.qkv, 0),
            Named("head.weight", self.head, "head"),
            Named("final.weight", self.vector, "vector"),
        ]

    def backward(self):
        for parameter in self.all:
            parameter.grad = None
        pairs = zip(self.all, self.targets, strict=True)
        sum(((its - target) ** 2).sum() / 2 for its, target in pairs).backward()

    def step(self, optimizers, schedulers):
        self.backward()
        for its in (*optimizers, *schedulers):
            its.step()


def falling(step):
    return 1 / (1 + step / 4)


def decayed(problem, weight_decay):
    return [{"params": problem.matrices, "weight_decay": weight_decay}, {"params": [problem.vector]}]


def torch_adamw(groups, weight_decay=0.0):
    return torch.optim.AdamW(
        groups, lr=LR, betas=(0.9, 0.95), eps=1e-8, weight_decay=weight_decay, fused=True
    )


# From the problem to the package's own optimizers.
REFERENCES = {
    "adamw": lambda its: [torch_adamw(decayed(its, 0.1))],
    "adamw_independent": lambda its: [torch_adamw(decayed(its, 1e-4 / LR))],
    "adafactor": lambda its: [torch.optim.Adafactor(its.all, lr=LR, beta2_decay=-0.8, eps=(None, 1e-3))],
    "rmsprop": lambda its: [torch.optim.RMSprop(its.all, lr=LR, alpha=0.99, eps=1e-8)],
    "sgd": lambda its: [torch.optim.SGD(its.all, lr=LR, momentum=0.9, nesterov=True)],
    "lion": lambda its: [pytorch_optimizer.Lion(decayed(its, 1.0), lr=LR, betas=(0.9, 0.99))],
    "muon": lambda its: [
        torch.optim.Muon(
            [its.hidden], lr=LR, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        torch_adamw([its.embedding, its.head], 0.1),
        torch_adamw([its.vector]),
    ],
    "stable_adamw": lambda its: [
        pytorch_optimizer.StableAdamW(
            [{"params": its.matrices}, {"params": [its.vector], "weight_decay": 0.0}],
            lr=LR, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01,
        )
    ],
    "schedule_free": lambda its: [pytorch_optimizer.ScheduleFreeAdamW(its.all, lr=LR, betas=(0.9, 0.999))],
    "spam": lambda its: [pytorch_optimizer.SPAM(its.all, lr=LR, warmup_epoch=150)],
    "stable_spam": lambda its: [pytorch_optimizer.StableSPAM(its.all, lr=LR)],
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_its_packages_own(spec, name):
    ours, reference = Quadratic(), Quadratic()
    optimizer = optimizer_from(spec(name))(ours.named, LR)
    scheduler = LambdaLR(optimizer, falling)
    packages = REFERENCES[name](reference)
    schedulers = [LambdaLR(its, falling) for its in packages]
    begun = [its.detach().clone() for its in ours.all]
    for _ in range(30):
        ours.step([optimizer], [scheduler])
        reference.step(packages, schedulers)
    for before, its, wanted in zip(begun, ours.all, reference.all, strict=True):
        torch.testing.assert_close(its, wanted, rtol=1e-6, atol=1e-7)
        assert not torch.equal(its, before)


# So that a state is left behind and begun again.
MORE = {"spam": {"reset_every": 5, "reset_warmup": 4, "density": 0.5}, "stable_spam": {"reset_every": 5}}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_goes_on_from_its_state_to_the_bit(spec, name):
    make = optimizer_from(spec(name, **MORE.get(name, {})))
    whole, parts = Quadratic(), Quadratic()
    states = {}
    for problem in (whole, parts):
        torch.manual_seed(0)
        optimizer = make(problem.named, LR)
        scheduler = LambdaLR(optimizer, falling)
        for step in range(14):
            if problem is parts and step == 7:
                file = io.BytesIO()
                torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
                file.seek(0)
                state, when = torch.load(file, weights_only=True)
                optimizer = make(problem.named, LR)
                scheduler = LambdaLR(optimizer, falling)
                optimizer.load_state_dict(state)
                scheduler.load_state_dict(when)
            torch.manual_seed(step)
            problem.step([optimizer], [scheduler])
        states[problem] = [group["lr"] for group in optimizer.param_groups]
    assert states[whole] == states[parts] == [LR * falling(14)] * len(states[whole])
    for a, b in zip(whole.all, parts.all, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {"schedule_free"}))
def test_a_step_at_no_lr_changes_nothing(spec, name):
    problem = Quadratic()
    optimizer = optimizer_from(spec(name))(problem.named, LR)
    scheduler = LambdaLR(optimizer, lambda step: float(step < 2))
    for _ in range(2):
        problem.step([optimizer], [scheduler])
    before = [its.detach().clone() for its in problem.all]
    problem.step([optimizer], [scheduler])
    assert all(torch.equal(a, b) for a, b in zip(before, problem.all, strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_matrices_decay_and_gains_do_not(run_cfg, name):
    cfg = run_cfg(f"optimizer={name}", "norm=sigma_reparam", "optimizer.weight_decay=0.3")
    module = build_module(cfg)
    roles = {id(its.parameter): its.role for its in named_parameters(module.model)}
    decay, seen = (0.3 / cfg.lr if name == "adamw_independent" else 0.3), 0
    for group in module.configure_optimizers()["optimizer"].param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.0 if roles[id(parameter)] == "vector" else decay)
            seen += 1
    assert seen == len(roles)
    assert "vector" in roles.values()


def test_the_default_has_two_groups(run_cfg):
    decayed, others = build_module(run_cfg()).configure_optimizers()["optimizer"].param_groups
    assert (decayed["weight_decay"], len(decayed["params"])) == (0.1, 2 + 4 * 2)
    assert others["weight_decay"] == 0.0


def decay_of_a_step(spec, lr):
    """The share of a matrix that one step at the peak takes off, with no gradient; a gain keeps all."""
    matrix, gain = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    named = [
        Named("blocks.0.mlp.fc1.weight", matrix, "hidden", Linear.fc1, 0),
        Named("final.weight", gain, "vector"),
    ]
    optimizer = optimizer_from(spec)(named, lr)
    matrix.grad, gain.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    assert torch.equal(gain.detach(), torch.ones(2))
    return 1 - matrix[0, 0].item()


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {*COUPLED}))
@pytest.mark.parametrize("lr", [0.003, 0.3])
def test_usual_decay_grows_with_the_lr_and_independent_decay_does_not(spec, name, lr):
    coupled, independent = (spec(name, weight_decay=0.01, independent=its) for its in (False, True))
    assert decay_of_a_step(coupled, lr) == pytest.approx(0.01 * lr, rel=0.05, abs=1e-7)
    assert decay_of_a_step(independent, lr) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("name", COUPLED)
def test_a_decay_that_goes_through_the_gradient_is_not_independent(spec, name):
    with pytest.raises(UserError, match=r"^optimizer\.independent=true: .* allowed: false"):
        optimizer_from(spec(name, weight_decay=0.01, independent=True))


def test_independent_decay_stays_where_a_group_has_another_lr(spec):
    table = {"fc1": {"lr_scale": 0.5, "weight_decay": 0.02}, "vector": {"weight_decay": 0.0}}
    assert decay_of_a_step(spec("adamw_independent", groups=table), 0.3) == pytest.approx(0.02, rel=1e-3)


def test_the_share_that_decay_takes_is_known_for_any_lr(spec):
    wanted = {"adamw_independent": (0.0, 0.3), "rmsprop": (0.0, 0.0), "sgd": (0.57, 0.0)}
    for name in OPTIMIZERS:  # SGD's first step has its momentum twice
        assert decay_shares(optimizer_from(spec(name, weight_decay=0.3))) == wanted.get(name, (0.3, 0.0)), (
            name
        )
    assert decay_shares(optimizer_from(spec("adamw_independent"))) == (0.0, 1e-4)


def users_own(optimizer, **arguments):
    return optimizer_from({"_target_": f"torch.optim.{optimizer}", **arguments})


def test_a_users_own_optimizer_is_given_parameters_and_its_decay_is_measured():
    assert decay_shares(users_own("SGD", weight_decay=0.1)) == (0.1, 0.0)
    assert decay_shares(users_own("Adam", weight_decay=0.1)) == (0.0, 0.0), "rescaled by Adam"
    assert decay_shares(users_own("SGD", momentum=-1)) == (0.0, 0.0), "refused by SGD"
    problem = Quadratic()
    optimizer = users_own("SGD")(problem.named, 0.1)
    assert optimizer.param_groups[0]["params"] == problem.all


def test_the_papers_constants(spec):
    for name, decay, independent in (("adamw", 0.1, False), ("adamw_independent", 1e-4, True)):
        its = spec(name)
        assert (its["betas"], its["eps"]) == ([0.9, 0.95], 1e-8)
        assert (its["weight_decay"], its["independent"]) == (decay, independent)


def test_a_model_of_matrices_alone_can_be_optimized(spec):
    optimizer = optimizer_from(spec("adamw"))(Quadratic().named[:3], 0.1)
    assert len(optimizer.param_groups) == 1


TABLE = {
    "blocks.0.*": {"weight_decay": 0.5},
    "qkv": {"lr_scale": 0.1, "eps": 1e-3},
    "vector": {"lr_scale": 2.0, "weight_decay": 0.0},
    "head": {"_target_": "torch.optim.SGD", "lr_scale": 3.0, "momentum": 0.5},
}


def test_the_first_pattern_that_matches_wins(run_cfg):
    cfg = run_cfg()
    cfg.optimizer.groups = TABLE
    module = build_module(cfg)
    optimizer = module.configure_optimizers()["optimizer"]
    names = {id(its.parameter): its.name for its in named_parameters(module.model)}
    found = {
        names[id(its)]: (round(group["lr"] / group["initial_lr"], 6), group["initial_lr"], group)
        for group in optimizer.param_groups
        for its in group["params"]
    }
    assert len(found) == len(names)

    def options(name):
        _, lr, group = found[name]
        return lr, group["weight_decay"], group.get("eps")

    assert options("embedding.weight") == (cfg.lr, 0.1, 1e-8)
    assert options("blocks.0.attention.qkv.weight") == (cfg.lr, 0.5, 1e-8)
    assert options("blocks.0.attn_in.weight") == (cfg.lr, 0.5, 1e-8)
    assert options("blocks.1.attention.qkv.weight") == (cfg.lr * 0.1, 0.1, 1e-3)
    assert options("blocks.1.mlp.fc1.weight") == (cfg.lr, 0.1, 1e-8)
    assert options("blocks.1.attn_in.weight") == (cfg.lr * 2, 0.0, 1e-8)
    assert options("head.weight") == (cfg.lr * 3, 0, None)
    assert found["head.weight"][2]["momentum"] == 0.5
    assert {share for share, _, _ in found.values()} == {0.2}, "the schedule's first, in every group"


def test_muon_has_hidden_matrices_alone(run_cfg):
    module = build_module(run_cfg("optimizer=muon", "norm=sigma_reparam"))
    optimizer = module.configure_optimizers()["optimizer"]
    muon = optimizer.optimizers[0]
    assert [type(its).__name__ for its in optimizer.optimizers] == ["Muon", "AdamW", "AdamW", "AdamW"]
    hidden = {id(its.parameter) for its in named_parameters(module.model) if its.role == "hidden"}
    assert {id(its) for group in muon.param_groups for its in group["params"]} == hidden
    assert len(hidden) == 4 * 2
    before = {id(its): its.detach().clone() for its in module.parameters()}
    for its in module.parameters():
        its.grad = torch.randn_like(its)
    muon.param_groups[0]["weight_decay"] = 0.0
    optimizer.step()
    for its in named_parameters(module.model):
        moved = (its.parameter - before[id(its.parameter)]).square().mean().sqrt().item()
        # Five steps of Newton and Schulz leave singular values between 0.7 and 1.2.
        wanted = 0.2 if its.role == "hidden" else 1.0
        assert moved == pytest.approx(wanted * module.lr * 0.2, rel=0.25), its.name
    optimizer.zero_grad()
    assert all(its.grad is None for its in module.parameters())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "+optimizer.groups.nothing={weight_decay:0.1}",
            r"groups\.nothing: no parameter.*embedding, head, .*qkv",
        ),
        ("+optimizer.groups={blocks.9.*:{weight_decay:0.1}}", r"groups\.blocks\.9\.\*: no parameter"),
        (
            "optimizer.groups.vector.weight_decay=-1",
            r"groups\.vector\.weight_decay=-1: allowed: a number from 0",
        ),
        (
            "+optimizer.groups.vector.momentum=0.1",
            r"groups\.vector\.momentum: unknown argument; allowed: betas",
        ),
        ("+optimizer.groups.vector.lr_scale=0", r"groups\.vector\.lr_scale=0: allowed: a number above 0"),
        ("+optimizer.groups.head=3", r"optimizer\.groups=.*allowed: names and their values"),
        ("+optimizer.groups.head={_target_:os.system}", r"groups\.head\._target_=os\.system"),
        ("+optimizer.groups.head={_target_:torch.optim.SGD,x:1}", r"groups\.head\.x: unknown argument"),
        ("optimizer.independent=3", r"optimizer\.independent=3: allowed: true or false"),
    ],
)
def test_a_mistake_in_a_table_is_one_line(run_cfg, override, said):
    with pytest.raises(UserError, match=said) as error:
        check_parts(run_cfg(override))
    assert "\n" not in str(error.value)


def test_an_option_that_groups_share_is_refused_in_one(run_cfg):
    with pytest.raises(
        UserError, match=r"groups\.vector\.spike: the same for all groups; allowed here: lr, "
    ):
        check(run_cfg("optimizer=spam", "+optimizer.groups.vector.spike=9"))
    check(run_cfg("+optimizer.groups={blocks.1.*:{weight_decay:0.2}}"))  # whose tiny run has one block


def test_a_packages_optimizer_says_which_extra_has_it(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    make = optimizer_from(spec("lion"))
    with pytest.raises(UserError, match=r"pip install 'redline\[optimizers\]'"):
        make(Quadratic().named, LR)


@pytest.mark.parametrize("name", ["muon", "schedule_free", "spam"])
@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
def test_a_resumed_run_equals_an_uninterrupted_one(run_cfg, tmp_path, name, precision):
    cfg = run_cfg(
        f"optimizer={name}", "schedule=constant", "lr=0.003",
        "trainer.max_steps=7", "trainer.checkpoint_every=2",
        f"trainer.precision={precision}", "trainer.allow_emulated=true",
        *(["optimizer.reset_every=3", "optimizer.reset_warmup=2"] if name == "spam" else []),
    )  # fmt: skip
    whole, losses = train(cfg, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(cfg, tmp_path / "parts", stop_at=5)
    resumed, later = train(cfg, tmp_path / "parts")
    assert resumed == whole
    assert later == {step: losses[step] for step in (4, 5, 6)}
    assert math.isfinite(whole.val_loss)


def saved(folder):
    return torch.load(folder / CHECKPOINT, weights_only=True)


def test_schedule_free_evaluates_and_saves_its_mean(run_cfg, tmp_path):
    cfg = run_cfg("optimizer=schedule_free", "schedule=constant")
    with pytest.raises(Stopped):
        train(cfg, tmp_path, stop_at=6)
    assert saved(tmp_path)["optimizer_states"][0]["param_groups"][0]["train_mode"]
    outcome, _ = train(cfg, tmp_path)
    end = saved(tmp_path)
    assert not end["optimizer_states"][0]["param_groups"][0]["train_mode"]
    model = build_module(cfg).model.eval()
    model.load_state_dict({name.removeprefix("model."): its for name, its in end["state_dict"].items()})
    corpus = open_corpus(cfg)
    losses = [
        nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).item()
        for tokens in map(torch.from_numpy, val_batches(corpus.val, 16, 4, 3))
    ]
    assert outcome.val_loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_joined_modes_reach_those_that_have_them():
    problem = Quadratic()
    free = pytorch_optimizer.ScheduleFreeAdamW([problem.hidden], lr=0.1)
    joined = Joined([free, torch.optim.SGD([problem.head], lr=0.1)])
    problem.backward()
    joined.step()
    joined.eval()
    assert not free.param_groups[0]["train_mode"]
    joined.train()
    assert free.param_groups[0]["train_mode"]


def test_joined_calls_a_closure_once():
    problem = Quadratic()
    joined = Joined([torch.optim.SGD([its], lr=0.1) for its in problem.all])
    calls = []

    def closure():
        calls.append(torch.is_grad_enabled())
        problem.backward()
        return 3.0

    assert joined.step(closure) == 3.0
    assert calls == [True]
