"""What may be asked of model=huggingface, what is refused, and a run of it."""

import pytest
import torch
from families import MAPS, D, H, V, config_of, tokens

from redline.errors import UserError
from redline.huggingface import HuggingFace
from redline.search import Facts, Trial
from redline.stability import Watch, build_rules
from redline.training.build import build_model, count_parameters
from redline.training.run import run

SMALL = {"hidden_size": D, "num_hidden_layers": 4, "num_attention_heads": H, "intermediate_size": 24}


@pytest.fixture
def saved(peers, tmp_path):
    """A folder with weights, in bf16."""
    config = peers.LlamaConfig(**SMALL, vocab_size=V, max_position_embeddings=16)
    torch.manual_seed(5)
    peers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


class Stopped(Exception):  # noqa: N818
    pass


def chosen(composed, *overrides, **keys):
    cfg = composed("model=huggingface", *overrides)
    cfg.model.vocab_size, cfg.data.sequence_length = V, 8
    for key, value in keys.items():
        cfg.model[key] = value
    return cfg


def test_weights_of_a_folder_are_those_that_training_begins_from(composed, peers, saved):
    theirs = peers.LlamaForCausalLM.from_pretrained(saved, dtype=torch.float32).eval()
    model = build_model(chosen(composed, path=str(saved))).eval()
    assert next(model.parameters()).dtype == torch.float32
    torch.testing.assert_close(model(tokens()), theirs(tokens()).logits, rtol=1e-5, atol=1e-5)


def test_a_config_json_gives_random_weights_by_the_seed(composed, saved):
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(
            build_model(chosen(composed, config=str(saved / "config.json"), overrides={"hidden_act": "relu"}))
        )
    first, again, other = (next(its.parameters()) for its in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert models[0].network.config.hidden_act == "relu"
    assert models[0].network.config.pad_token_id is None


@pytest.mark.parametrize("family", ["gemma3_text", "gpt2", "smollm3"])
def test_the_small_one_for_the_check_is_of_one_layer(composed, peers, family):
    cfg = config_of(composed, family)
    plain = {key: cfg.model[key] for key in cfg.model if key != "sites"} | {"sites": None}
    cfg.model = HuggingFace.small(plain)
    model = build_model(cfg)
    assert len(model.site_map.layers) == 1
    assert cfg.model.vocab_size == V


def test_parameters_are_counted_without_memory_for_them(composed, peers):
    cfg = chosen(composed, type="llama", overrides={"hidden_size": 8192, "num_hidden_layers": 2})
    cfg.norm_strategy.linear = {"_target_": "redline.model.transforms.UnitWeight"}
    assert count_parameters(cfg) == 2 * (4 * 8192**2 + 3 * 8192 * 11008 + 2 * 8192) + 2 * V * 8192 + 8192


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "model.type=null: allowed: one of model.type, model.config and model.path"),
        ({"type": "llama", "config": "x.json"}, "model.type=llama, model.config=x.json: allowed: one of"),
        ({"type": "lama"}, "model.type=lama: .*no language model of the type lama; allowed: .*llama"),
        ({"type": "llama", "overrides": {"hiden_size": 3}}, "overrides.hiden_size: .*mean hidden_size"),
        ({"type": "llama", "overrides": {"num_attention_heads": 7}}, "model.overrides: .*attention heads"),
        ({"type": "bloom"}, "type bloom computes attention by itself"),
        ({"config": "no.json"}, "model.config=no.json: .*No such file"),
        ({"type": "granite", "overrides": SMALL}, "sites: no file .* granite; .*q_proj.*sites=guess"),
        ({"type": "llama", "overrides": SMALL, "sites": {"blcks": 3}}, "sites.blcks: unknown key"),
        ({"type": "llama", "overrides": SMALL, "sites": {"blocks": "x"}}, "sites.head: not set"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(composed, peers, keys, said):
    with pytest.raises(UserError, match=said) as error:
        build_model(chosen(composed, **keys))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cfg: cfg.model.update(vocab_size=64), "model.vocab_size=64: .* for 32"),
        (lambda cfg: cfg.data.update(sequence_length=32), "data.sequence_length=32: allowed .* up to 16"),
    ],
)
def test_what_the_weights_do_not_fit_is_refused(composed, saved, change, said):
    cfg = chosen(composed, path=str(saved))
    change(cfg)
    with pytest.raises(UserError, match=said):
        build_model(cfg)


def test_a_guessed_map_is_taken_where_it_holds_and_refused_where_the_block_does_more(composed, peers):
    """Granite's block multiplies its branches by a factor, which is in none of its parts."""
    shape = {"type": "granite", "overrides": {**SMALL, "residual_multiplier": 0.5}, "sites": {"guess": True}}
    assert len(build_model(chosen(composed, "norm=qk", **shape)).site_map.layers) == 4
    with pytest.raises(UserError, match="sites: the block does more"):
        build_model(chosen(composed, "norm=fc", **shape))
    shape["overrides"]["residual_multiplier"] = 1.0
    build_model(chosen(composed, "norm=fc", **shape))


def test_a_norm_that_the_map_does_not_name_is_not_lost(composed, peers):
    cfg = config_of(composed, "qwen3")
    cfg.model.sites = {**MAPS["llama"]}
    with pytest.raises(UserError, match=r"sites\.norms: has no site for the block"):
        build_model(cfg)


def test_a_run_that_was_killed_goes_on_to_the_same_numbers(composed, peers, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = composed(
        "model=huggingface", "model.type=gpt_neox", "model.vocab_size=512", "model.sequence_length=16",
        "norm=qkv", "lr=0.001", "trainer.max_steps=6", "trainer.precision=fp32", "trainer.accelerator=cpu",
        "trainer.checkpoint_every=2", "tracker=none", "data.batch_size=4", "data.val_batches=2",
        "schedule.warmup_steps=1", "monitor.every=1", "divergence.blow_up=null", "divergence.no_return=null",
        f"data.cache_dir={shared / 'tokens'}", *(f"model.overrides.{key}={SMALL[key]}" for key in SMALL),
    )  # fmt: skip
    whole = run(cfg, trial_in(tmp_path / "whole", cfg))
    stopped = trial_in(tmp_path / "again", cfg, stop=4)
    with pytest.raises(Stopped):
        run(cfg, stopped)
    assert (tmp_path / "again/last.ckpt").exists()
    again = run(cfg, trial_in(tmp_path / "again", cfg))
    assert again.loss == whole.loss


def trial_in(directory, cfg, stop=None):
    directory.mkdir(exist_ok=True)

    def progress(its):
        if its.step == stop:
            raise Stopped

    rules = build_rules(cfg.divergence, object)
    return Trial(
        value=cfg.lr, seed=0, directory=directory, facts=Facts(cfg.trainer.max_steps), tags={"norm": "qkv"},
        watch=Watch(rules, progress),
    )  # fmt: skip
