"""A mistake of the user's: status 2, one line on stderr that names the key and what is allowed."""

from collections.abc import Collection
from pathlib import Path

import pytest

from command_helpers import Answer, Ask, train
from postgresql_server import ESCAPED, PostgreSQL

SMALL = ["experiment=smoke", "trainer.max_steps=3", "trainer.accelerator=cpu"]
NO_BF16 = "import torch; torch.cpu.get_capabilities = lambda: {'avx2': True}"


def is_refused(answer: Answer, *said: str, cwd: Path, may_leave: Collection[str] = ()) -> None:
    """``may_leave``: names of files, of a mistake that shows only where the studies are."""
    assert answer.status == 2, answer
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert answer.stderr.endswith("\n")
    for words in said:
        assert words in answer.stderr
    assert "Traceback" not in answer.stdout
    assert "step" not in answer.stdout, "something was trained"
    left = {file.name for file in cwd.rglob("mlruns/**/*") if file.is_file()}
    assert left <= set(may_leave)
    assert may_leave or not (cwd / "mlruns").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["norm=qkw"], ["norm=qkw", "allowed: attn_none, baseline, deep_norm", "did you mean qk"]),
        (["data=wikipedia"], ["data=wikipedia", "allowed: ", "shakespeare, text"]),
        (["experiment=big"], ["experiment=big", "allowed: demo, "]),
        (["lr=-1"], ["lr=-1", "above 0"]),
        (["lr=0"], ["lr=0", "above 0"]),
        (["lr=abc"], ["lr", "abc"]),
        (["lr=nan"], ["lr=nan", "above 0"]),
        (["lr=inf"], ["lr=inf", "allowed"]),
        (["seed=-1"], ["seed=-1", "from 0 to"]),
        (["modle.width=3"], ["modle", "did you mean model?"]),
        (["model.widht=3"], ["model.widht", "did you mean width?"]),
        (["+model.hidden=3"], ["model.hidden", "allowed"]),
        (["model.width=65"], ["model.width=65", "allowed"]),
        (["model.width=0"], ["model.width=0", "from 1 to"]),
        (["model.num_heads=3"], ["model.", "allowed"]),
        (["model.num_heads=0"], ["model.num_heads=0", "from 1 to"]),
        (["model.num_layers=two"], ["model.num_layers", "two"]),
        (["model.dropout=1"], ["model.dropout=1", "from 0 to below 1"]),
        (["model.vocab_size=70000"], ["model.vocab_size=70000", "uint32"]),
        (["model.vocab_size=100"], ["model.vocab_size=100", "allowed"]),
        (["model.positions=sinus"], ["model.positions", "sinus", "rope"]),
        (["trainer.max_steps=0"], ["trainer.max_steps=0", "from 1 to"]),
        (["trainer.precision=fp4"], ["trainer.precision", "fp4", "fp32", "bf16-mixed"]),
        (["trainer.accelerator=tpu"], ["trainer.accelerator=tpu", "allowed: auto, cpu, gpu"]),
        (["trainer.resume=gone.ckpt"], ["trainer.resume=gone.ckpt", "no such file", "allowed"]),
        (["norm=qk", "+norm_strategy.q.epsilon=1"], ["norm_strategy.q.epsilon: unknown", "allowed: span"]),
        (["data.batch_size=0"], ["data.batch_size=0", "from 1 to"]),
        (["data.sequence_length=100000"], ["data.", "allowed"]),
        (["data=text"], ["data.path=null", "allowed"]),
        (["data=text", "data.path=no/such.txt"], ["data.path=no/such.txt", "no such file"]),
        (["data=text", "data.path=tiny.txt"], ["data.", "allowed"]),
        (["data=text", "data.path=empty.txt"], ["data.", "allowed"]),
        (
            ["tracker=mlfow"],
            ["tracker=mlfow", "did you mean mlflow", "csv, mlflow, none, tensorboard, wandb"],
        ),
        (["tracker=[csv,excel]"], ["tracker=excel: unknown", "allowed: csv, mlflow, none"]),
        (["tracker=csv", "+tracker.mlflow.outbox=x"], ["tracker.mlflow", "tracker=[mlflow,csv]"]),
        (["tracker.mlflow.tracking_uri=./mlruns"], ["tracking_uri=./mlruns", "sqlite:///PATH"]),
        (["tracker.mlflow.trackin_uri=x"], ["trackin_uri", "did you mean tracking_uri?"]),
        (["hydra.run.dir=/proc/x"], ["hydra.run.dir=/proc/x: cannot be made or written"]),
        (["hydra.run.dir="], ["hydra.run.dir=: ", "no folder is named"]),
        (["data.cache_dir=/proc/x", "model.vocab_size=300"], ["data.cache_dir=/proc/x: cannot be made"]),
        (["tracker=csv", "tracker.csv.save_dir=/proc/x"], ["tracker.csv.save_dir=/proc/x: cannot be made"]),
        (["tracker.mlflow.outbox=/dev/null/x"], ["tracker.mlflow.outbox=/dev/null/x: cannot be made"]),
        (
            ["tracker.mlflow.tracking_uri=sqlite:////proc/x.db"],
            ["=sqlite:////proc/x.db: does not open"],
        ),
        (
            ["tracker.mlflow.tracking_uri=sqlite:////nosuch/x.db"],
            ["=sqlite:////nosuch/x.db: does not"],
        ),
        (["lr=0.1", "lr=("], ["lr"]),
        (["norm=qk,qkv"], ["norm", "-m"]),
        (["norm=null"], ["norm=null", "allowed: attn_none, baseline"]),
        (["tracker=null"], ["tracker=null", "allowed: csv, mlflow, none"]),
        (["data.source=null"], ["data.source=null", "allowed: a class"]),
        (["optimizer.betas=0.9"], ["optimizer.betas=0.9", "from 0 to below 1"]),
        (["optimizer.eps=abc"], ["optimizer.eps=abc", "above 0, up to 1"]),
        (["+optimizer.typo=1"], ["optimizer.typo: unknown", "betas, eps"]),
        (["optimizer._target_=torch.optim.SGD"], ["optimizer.betas: unknown", "momentum"]),
        (["schedule._target_=nosuch.f"], ["schedule._target_=nosuch.f", "nosuch", "allowed: a function"]),
        (["schedule._target_=os.system"], ["schedule._target_=os.system", "blocklisted"]),
        (["schedule.warmup_steps=1000000"], ["schedule.warmup_steps=1000000", "trainer.max_steps=3"]),
        (["schedule.final_fraction=-5"], ["schedule.final_fraction=-5", "from 0 to 1"]),
        (["divergence.blow_up.patience=0"], ["divergence.blow_up.patience=0", "above 0, up to 1"]),
        (["data.sequence_length=-3"], ["data.sequence_length=-3", "from 1 to"]),
        (["init.std=nan"], ["init.std=nan", "above 0"]),
        (["model.width=1000000000"], ["model.width=1000000000", "from 1 to"]),
        (["model.width=100000", "model.num_layers=900"], ["model.width=100000", "GiB"]),
        (["seed=99999999999999999999"], ["seed=99999999999999999999", "from 0 to"]),
        (["trainer.threads=100000"], ["trainer.threads=100000", "from 1 to"]),
        (["trainer.resume=tiny.txt"], ["trainer.resume=tiny.txt", "weights and plain values"]),
        (["tracker.mlflow.tracking_uri=5"], ["tracker.mlflow.tracking_uri=5", "text"]),
        (["tracker.mlflow.send_timeout=abc"], ["tracker.mlflow.send_timeout=abc", "above 0"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in value[0] else "",
)
def test_a_run_that_cannot_work_is_refused(
    ask: Ask, shared: Path, tmp_path: Path, words: list[str], said: list[str]
) -> None:
    (tmp_path / "tiny.txt").write_text("Too short to fill a batch. " * 20)
    (tmp_path / "empty.txt").write_text("")
    tokens = f"data.cache_dir={shared / 'tokens'}"
    is_refused(ask(*SMALL, tokens, *words, cwd=tmp_path), *said, cwd=tmp_path)


def test_bf16_on_a_device_without_it_is_refused(ask: Ask, tmp_path: Path) -> None:
    answer = ask(*SMALL, "trainer.precision=bf16-mixed", cwd=tmp_path, before=NO_BF16)
    is_refused(answer, "trainer.precision=bf16-mixed", "no bf16 instructions", "fp32, auto", cwd=tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["norm=qk,qkw"], ["norm=qkw", "allowed: attn_none, baseline"]),
        (["norm=glob(zz*)"], ["norm=", "allowed"]),
        (["lr=0,0.1"], ["lr=0", "above 0"]),
        (["lr=-1,0.1"], ["lr=-1", "above 0"]),
        (["lr=0.1"], ["lr=0.1", "one value is no ladder", "list, a range or an interval"]),
        (["lr=range(0.001,0.08)"], ["lr=range(0.001,0.08", "default is 1"]),
        (["lr=abc,0.1"], ["lr=abc", "numbers above 0"]),
        (["modle.width=3"], ["modle", "did you mean model?"]),
        (["model.widht=3,4"], ["model.widht", "did you mean width?"]),
        (["model.num_heads=3"], ["model.width=32", "model.num_heads=3", "allowed"]),
        (["+norm_strategy.q.epsilon=1"], ["norm_strategy.q.epsilon: unknown", "allowed: span"]),
        (["trainer.resume=gone.ckpt"], ["trainer.resume=gone.ckpt", "allowed in a search: null"]),
        (["data=text", "data.path=no/such.txt"], ["data.path=no/such.txt", "no such file"]),
        (["data.batch_size=0"], ["data.batch_size=0", "from 1 to"]),
        (["optimizer.betas=[2,2]"], ["optimizer.betas=[2, 2]", "from 0 to below 1"]),
        (["hydra.sweeper.wrokers=1"], ["hydra.sweeper.wrokers", "did you mean workers?"]),
        (["hydra.sweeper.workers=0"], ["hydra.sweeper.workers=0", "from 1 to"]),
        (["hydra.sweeper.workers=many"], ["workers", "many"]),
        (["hydra.sweeper.seeds=0"], ["hydra.sweeper.seeds=0", "from 1 to 1000"]),
        (["hydra.sweeper.resolution=1"], ["hydra.sweeper.resolution=1", "above 1"]),
        (["hydra.sweeper.cut=1"], ["hydra.sweeper.cut=1", "from 0 to below 1"]),
        (["hydra.sweeper.min=2", "hydra.sweeper.max=1"], ["hydra.sweeper.max=1", "more than min"]),
        (["hydra.sweeper.prior.noise=[0,1]"], ["hydra.sweeper.prior.noise", "above 0"]),
        (["hydra.sweeper.short_run_steps=2"], ["hydra.sweeper.short_run_steps=2", "schedule.warmup_steps=2"]),
        (
            ["hydra.sweeper.short_run_steps=9"],
            ["hydra.sweeper.short_run_steps=9", "trainer.max_steps=3", "or null"],
        ),
        (["hydra.sweeper.criterion=most"], ["hydra.sweeper.criterion=most", "useful, stable, both"]),
        (["hydra.sweeper.retries=-1"], ["hydra.sweeper.retries=-1", "from 0 to"]),
        (["hydra.sweeper.heartbeat_every=0"], ["hydra.sweeper.heartbeat_every=0", "above 0"]),
        (
            ["hydra.sweeper.heartbeat_timeout=1"],
            ["hydra.sweeper.heartbeat_timeout=1", "more than heartbeat_every"],
        ),
        (["hydra.sweeper.report_timeout=0"], ["hydra.sweeper.report_timeout=0", "above 0"]),
        (["hydra.sweeper.storage_timeout=0"], ["hydra.sweeper.storage_timeout=0", "above 0"]),
        (["hydra.sweeper.storage=nonsense"], ["hydra.sweeper.storage=nonsense", "sqlite:///PATH"]),
        (["hydra.sweeper.storage=sqlite:////proc/no/db"], ["hydra.sweeper.storage=sqlite:////proc/no/db"]),
        (["hydra.sweeper.storage=postgresql://u:p@127.0.0.1:1/d"], ["hydra.sweeper.storage=postgresql://"]),
        (["hydra.sweeper.storage=sqlite:////proc/x.db"], ["hydra.sweeper.storage=sqlite:////proc/x.db"]),
        (["hydra.sweeper.storage=http://x"], ["hydra.sweeper.storage=http://x", "not a database's URL"]),
        (["hydra.sweeper.storage=postgresql://u:p@s3@127.0.0.1/d"], ["hydra.sweeper.storage: ", "%40"]),
        (["hydra.sweep.dir=/proc/x"], ["hydra.sweep.dir=/proc/x: cannot be made or written"]),
        (["hydra.sweep.dir="], ["hydra.sweep.dir=: ", "no folder is named"]),
        (["search.name=a/b"], ["search.name=a/b", "without /"]),
        (["search.name=.."], ["search.name=..", "no . or ~ in front"]),
        ([f"search.name={'x' * 300}"], ["search.name=xxx", "1 to 100 characters"]),
        (["lr=range(0.1,1,1e-9)"], ["lr=range(0.1,1,1e-09)", "at most 1000"]),
        (["lr=interval(0.1,1)", "hydra.sweeper.tolerance=1e-12"], ["lr=interval(0.1,1)", "at most 1000"]),
        (["norm=qk", "norm_strategy.q._target_=redline.model.transforms.LayerNrm"], ["LayerNrm", "allowed"]),
        (["trainer.max_steps=0"], ["trainer.max_steps=0", "from 1 to"]),
        (["data.batch_size=100000"], ["data.batch_size=100000", "training part has"]),
        (
            ["hydra.sweeper.key=optimizer.weight_decay", "optimizer.weight_decay=1,2000"],
            ["2000", "from 0 to"],
        ),
        (["hydra.sweeper.jobs=0"], ["hydra.sweeper.jobs=0", "from 1 to 10000, or null"]),
        (["hydra.sweeper.jobs=2"], ["hydra.sweeper.jobs=2", "hydra/launcher", "submitit_slurm"]),
        (["hydra.sweeper.jobs=many"], ["jobs", "many"]),
        (
            ["hydra/launcher=submitit_slrum"],
            ["hydra/launcher=submitit_slrum", "did you mean submitit_slurm?"],
        ),
        (["hydra/launcher=abacus"], ["hydra/launcher=abacus: unknown", "basic, submitit_", "'redline[ray]'"]),
        (["hydra/launcher=submitit_slurm", "hydra.launcher.partitoin=x"], ["partitoin"]),
        (["hydra/sweeper=grid"], ["hydra/sweeper=grid", "max_lr"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in value[0] else "",
)
def test_a_search_that_cannot_work_is_refused(
    ask: Ask, shared: Path, tmp_path: Path, words: list[str], said: list[str]
) -> None:
    tokens = f"data.cache_dir={shared / 'tokens'}"
    about_studies = words[0].startswith("hydra.sweeper.storage=")
    may_leave = {"optuna.db", "optuna.db.lock"} if about_studies else ()
    answer = ask("-m", *SMALL, tokens, "norm=qk", *words, cwd=tmp_path)
    is_refused(answer, *said, cwd=tmp_path, may_leave=may_leave)


def test_a_wrong_password_is_refused_and_not_repeated(
    ask: Ask, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    url = postgresql.url("postgres").replace(ESCAPED, "guessed")
    answer = ask("-m", *SMALL, "norm=qk", f"hydra.sweeper.storage={url}", cwd=tmp_path)
    shown = url.replace("guessed", "***")
    said = [f"hydra.sweeper.storage={shown}", "password authentication failed"]
    is_refused(answer, *said, cwd=tmp_path, may_leave={"optuna.db", "optuna.db.lock"})
    assert "guessed" not in answer.stderr


def test_what_only_one_variant_shows_is_refused_before_anything_trains(ask: Ask, tmp_path: Path) -> None:
    """The second of two variants is the wrong one: the first must not have been trained."""
    answer = ask("-m", *SMALL, "norm=qk", "model.width=32,33", cwd=tmp_path)
    is_refused(answer, "model.width=33", "allowed", cwd=tmp_path)


def test_a_real_process_answers_the_same(tmp_path: Path) -> None:
    """The rest of this file asks a warm fork; this is what a shell sees."""
    is_refused(train(*SMALL, "lr=-1", cwd=tmp_path), "lr=-1", "above 0", cwd=tmp_path)
