import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from redline.config import register
from redline.data import open_corpus
from redline.errors import UserError

ROOT = Path(__file__).parents[2]


def config(tmp_path: Path, *overrides: str) -> DictConfig:
    """The `model` and `data` groups of `conf/`, against the schema."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        only = ["model.sequence_length=16", "model.vocab_size=300", "data.batch_size=4"]
        left_out = [f"~{group}" for group in ("norm", "optimizer", "schedule", "trainer", "monitor")]
        left_out += [f"~{group}" for group in ("divergence", "tracker", "experiment")]
        return compose("train", [*left_out, *only, f"data.cache_dir={tmp_path / 'cache'}", *overrides])


def test_text_of_the_users_own(text_folder: Path, tmp_path: Path) -> None:
    corpus = open_corpus(config(tmp_path, "data=text", f"data.path={text_folder}"))

    assert corpus.vocab_size == 300
    assert corpus.path.parent == tmp_path / "cache"


def test_a_list_of_paths_and_another_token_type(text_folder: Path, tmp_path: Path) -> None:
    paths = f"data.path=[{text_folder / 'b.md'},{text_folder / 'a.txt'}]"
    corpus = open_corpus(config(tmp_path, "data=text", paths, "data.token_type=uint32"))

    assert corpus.train.dtype == "uint32"


def test_a_saved_dataset(text_folder: Path, tmp_path: Path) -> None:
    texts = [(text_folder / "a.txt").read_text(), (text_folder / "b.md").read_text()]
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / "saved")

    corpus = open_corpus(config(tmp_path, "data=huggingface", f"data.path={tmp_path / 'saved'}"))

    assert len(corpus.train) > len(corpus.val) > 0


@pytest.mark.parametrize("choice", ["shakespeare", "text", "huggingface"])
def test_each_choice_has_a_source_with_its_own_arguments_only(tmp_path: Path, choice: str) -> None:
    cfg = config(tmp_path, f"data={choice}")
    arguments = {
        "shakespeare": {"package", "pattern"},
        "text": {"path", "text_key"},
        "huggingface": {"path", "name", "split", "text_column", "data_files"},
    }

    assert set(cfg.data.source) == arguments[choice] | {"_target_"}
    assert cfg.data.sequence_length == cfg.model.sequence_length
    first_line = (ROOT / "conf" / "data" / f"{choice}.yaml").read_text().splitlines()[0]
    assert first_line.startswith("# ")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.val_fraction=1.5", "data.val_fraction=1.5: "),
        ("data.path=null", "data.path=null: "),
        ("model.vocab_size=100", "model.vocab_size=100: "),
        ("model.vocab_size=70000", "model.vocab_size=70000: does not fit data.token_type=uint16"),
        (
            "data.batch_size=1000",
            "data.batch_size=1000 with data.sequence_length=16: one batch needs 17000 tokens",
        ),
        ("data.batch_size=100", "the validation part has"),
        ("+data.source.colour=red", "data.source.colour: unknown argument; allowed: path, text_key"),
        (
            "data.source._target_=redline.data.corpus.Missing",
            "data.source._target_=redline.data.corp",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(text_folder: Path, tmp_path: Path, override: str, said: str) -> None:
    cfg = config(tmp_path, "data=text", f"data.path={text_folder}", override)

    with pytest.raises(UserError) as error:
        open_corpus(cfg)

    message = str(error.value)
    assert said in message
    assert "allowed: " in message
    assert "\n" not in message


def test_the_coordinator_can_prepare_tokens_without_torch() -> None:
    code = "import sys, redline.data; sys.exit('torch' in sys.modules or 'datasets' in sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src")
