"""A configuration as what a search trains: what makes another search, and what does not."""

import shutil

import pytest
from omegaconf import OmegaConf

from redline.errors import UserError
from redline.search import Facts, Trial, Variant
from redline.search.variant import fingerprint, with_short_runs
from redline.stability import rule_specs
from redline.training.trainable import Training


@pytest.fixture
def asked(run_cfg):
    """What decides outcomes, in a run with these overrides."""
    return lambda *overrides, key="lr": Training(run_cfg(*overrides), key).settings()


def test_a_corpus_is_its_content_wherever_it_lies(asked, text, tmp_path):
    moved = shutil.copy(text, tmp_path / "elsewhere.txt")
    assert asked(f"data.path={moved}") == asked()
    changed = tmp_path / "changed.txt"
    changed.write_text(text.read_text().replace("a", "b", 1))
    assert asked(f"data.path={changed}") != asked()


@pytest.mark.parametrize(
    "override",
    [
        "tracker=csv",
        "monitor=off",
        "monitor.every=7",
        "divergence.forecaster.ramp=9",
        "trainer.threads=2",
        "trainer.devices=2",
        "trainer.rank_timeout=9",
        "trainer.progress_bar=false",
        "trainer.checkpoint_every=1",
        "trainer.keep_checkpoint=false",
        "data.cache_dir=elsewhere",
        "search.name=x",
        "search.mlflow_ui=null",
        "lr=0.7",
        "seed=3",
    ],
)
def test_what_decides_no_outcome_makes_no_other_search(asked, override, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a folder of tokens is made there
    assert asked(override) == asked()


@pytest.mark.parametrize(
    "override",
    [
        "norm=qk",
        "model.dropout=0.1",
        "optimizer.weight_decay=0.2",
        "schedule.warmup_steps=3",
        "trainer.max_steps=13",
        "gradient.clip.max_norm=2.0",
        "trainer.precision=auto",
        "data.batch_size=5",
        "data.val_batches=4",
        "data.val_fraction=0.2",
        "divergence.forecast=end",
    ],
)
def test_what_decides_an_outcome_does(asked, override):
    assert asked(override) != asked()


@pytest.mark.parametrize("override", ["divergence.forecaster.ramp=9", "monitor.every=7", "monitor=full"])
def test_where_forecasts_end_runs_the_forecaster_and_what_it_reads_count(asked, override):
    end = "divergence.forecast=end"
    assert asked(end, override) != asked(end)


def test_the_searched_value_is_the_ladders_to_say(asked):
    key = "optimizer.weight_decay"
    assert asked("optimizer.weight_decay=0.2", key=key) == asked(key=key)
    assert asked("lr=0.7", key=key) != asked(key=key)


def test_the_settings_are_plain_values(asked):
    assert fingerprint({"any": asked("divergence.forecast=end")}, [0.1, 0.2], {})


def test_a_trial_is_given_its_value_seed_threads_and_precision(run_cfg, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr("redline.training.ranks.launcher.run", lambda cfg, trial: ran.append(cfg))
    cfg = run_cfg("trainer.threads=null", "trainer.precision=auto")
    trial = Trial(0.5, 7, tmp_path, Facts(12, precision="bf16-mixed"), threads=3)
    Training(cfg, "optimizer.weight_decay").run(trial)
    its = ran[0]
    assert (its.optimizer.weight_decay, its.seed, its.trainer.threads) == (0.5, 7, 3)
    assert (its.lr, its.trainer.precision.value) == (cfg.lr, "bf16-mixed")
    assert not its.trainer.keep_checkpoint
    assert OmegaConf.to_container(cfg) == OmegaConf.to_container(
        run_cfg("trainer.threads=null", "trainer.precision=auto")
    ), "the search's own configuration was changed"


def test_short_runs_are_judged_by_their_own_length(run_cfg):
    cfg = run_cfg()
    rules = rule_specs(OmegaConf.to_container(cfg.divergence, resolve=True))
    full, short = with_short_runs(Variant("qk", Training(cfg), rules), 9)
    for variant, steps in ((full, 12), (short, 9)):
        lengths = [variant.rules[name]["max_steps"] for name in ("blow_up", "no_return")]
        assert lengths == [variant.trainable.max_steps] * 2 == [steps] * 2
    assert set(full.rules) - set(short.rules) == {"no_learning"}
    with_short_runs(Variant("qk", Training(cfg), {**rules, "no_return": None}), 9)  # one that is off


def test_the_recipe_is_what_an_edge_depends_on(run_cfg):
    facts = Training(run_cfg()).facts()
    assert facts.recipe == {
        "optimizer": "adamw",
        "betas": [0.9, 0.95],
        "eps": 1e-8,
        "weight_decay": 0.1,
        "independent": False,
        "vector.weight_decay": 0.0,
        "schedule": "cosine",
        "warmup_steps": 5,
        "final_fraction": 0.1,
        "init": "gpt2",
        "std": 0.02,
        "loss": "cross_entropy label_smoothing=0.0",
        "gradient": "clip max_norm=1.0",
        "norm_layer": "LayerNorm",
        "max_steps": 12,
        "tokens_per_step": 4 * 16,
        "precision": "fp32",
    }
    assert facts.decay_per_step(0.5) == pytest.approx(0.05)
    independent = Training(run_cfg("optimizer=adamw_independent", "gradient=none")).facts()
    assert (independent.recipe["independent"], independent.recipe["gradient"]) == (True, None)
    assert independent.decay_per_step(0.5) == 1e-4
    muon = Training(run_cfg("optimizer=muon")).facts().recipe
    assert (muon["optimizer"], muon["head"], muon["head.eps"]) == ("muon", "adamw", 1e-8)


@pytest.mark.parametrize("key", ["optimizer.weight_decay", "schedule.warmup_steps", "gradient.clip.max_norm"])
def test_what_is_searched_is_not_of_the_recipe(run_cfg, key):
    facts = Training(run_cfg("lr=0.25"), key).facts()
    assert key.rpartition(".")[2] not in facts.recipe
    assert facts.recipe["lr"] == 0.25
    assert facts.decay_per_step(0.5) is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["norm=qk", "+norm_strategy.q.epsilon=1"],
            r"norm_strategy\.q\.epsilon: unknown.* allowed: span",
        ),
        (["optimizer.betas=[2,2]"], r"optimizer\.betas=\[2, 2\]: allowed"),
        (["+monitor.taps.memory.colour=red"], r".*colour"),
        (["+divergence.blow_up.colour=red"], r".*colour"),
        (["trainer.resume=some.ckpt"], r"trainer\.resume=some\.ckpt: allowed in a search: null"),
    ],
)
def test_a_mistake_is_the_users_wherever_it_is_found(run_cfg, overrides, said):
    """In a child process anything but UserError would be a crash, and tried again."""
    with pytest.raises(UserError, match=said) as error:
        Training(run_cfg(*overrides)).check()
    assert "\n" not in str(error.value)
