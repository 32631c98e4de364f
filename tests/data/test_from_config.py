import json
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from data_helpers import words
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from redline.config import register
from redline.data import Text, build_corpus, corpus_identity, open_corpus
from redline.data.tokenizer import BytePairs, train_tokenizer
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


def test_a_saved_dataset(tmp_path: Path) -> None:
    texts = [words(seed, 100) for seed in range(20)]  # each is on one side or the other
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / "saved")

    corpus = open_corpus(config(tmp_path, "data=huggingface", f"data.path={tmp_path / 'saved'}"))

    assert len(corpus.train) > len(corpus.val) > 0


@pytest.mark.parametrize("choice", ["shakespeare", "text", "huggingface", "tokens"])
def test_each_choice_has_a_source_with_its_own_arguments_only(tmp_path: Path, choice: str) -> None:
    cfg = config(tmp_path, f"data={choice}")
    arguments = {
        "shakespeare": {"package", "pattern"},
        "text": {"path", "text_key"},
        "huggingface": {"path", "name", "split", "text_column", "data_files"},
        "tokens": {"path", "val_path", "token_type"},
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


def test_the_defaults_corpus_is_taken_as_it_is(tmp_path: Path) -> None:
    text = build_corpus(config(tmp_path))

    assert isinstance(text, Text)
    assert (text.steps, type(text.tokenizer), config(tmp_path).data.split) == ({}, BytePairs, "text")


def test_steps_are_a_list_of_choices_in_their_order(tmp_path: Path) -> None:
    steps = ["data/steps=[near,exact,clean]", "data.steps.near.threshold=0.7", "data.steps.exact=null"]
    text, other = (build_corpus(config(tmp_path, *its)) for its in (steps, ["data/steps=[clean,near]"]))

    assert isinstance(text, Text)
    assert isinstance(other, Text)
    assert [*text.steps] == ["near", "clean"]
    assert [*other.steps] == ["clean", "near"]
    assert text.identity() != other.identity() != build_corpus(config(tmp_path)).identity()


def test_steps_and_a_tokenizer_shape_the_tokens(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a  b"}\n' * 30
        + "".join(json.dumps({"text": f"{number}  {words(number, 20)}"}) + "\n" for number in range(30))
    )
    chosen = ["data/steps=[clean,exact]", "data/tokenizer=bytes", "data.split=document", "data.batch_size=2"]

    corpus = open_corpus(config(tmp_path, "data=text", f"data.path={tmp_path / 'a.jsonl'}", *chosen))

    documents = [
        document
        for part in (corpus.train, corpus.val)
        for document in "".join(map(chr, part[:])).split(chr(256))[:-1]
    ]
    assert sorted(documents) == sorted({"a b", *(f"{its} {words(its, 20)}" for its in range(30))})


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.val_path=b"], "data.val_path=b: data.split takes the validation part"),
        (["data=tokens", "data/steps=[exact]"], "data.steps={'exact': "),
        (["data=tokens", "data/tokenizer=bytes"], "data.tokenizer={'_target_': "),
        (["data=tokens", "data.split=document"], "data.split=document: data.source reads tokens"),
        (
            ["data/steps=[near]", "data.steps.near.threshold=0"],
            "data.steps.near.threshold=0: allowed",
        ),
        (["data/steps=[near]", "+data.steps.near.size=0"], "data.steps.near.size: unknown argument"),
        (["+data.steps.mine={_target_: os.system}"], "data.steps.mine._target_=os.system"),
        (
            ["+data.steps.mine={_target_: builtins.len}"],
            "data.steps.mine._target_=builtins.len: allowed",
        ),
        (["+data.steps.mine=3"], "data.steps.mine=3: allowed: a function"),
        (["data.tokenizer=null"], "data.tokenizer=null: allowed: a class with the methods"),
        (
            ["data.tokenizer._target_=builtins.dict"],
            "data.tokenizer._target_=builtins.dict: allowed",
        ),
        (
            ["data/tokenizer=tiktoken", "data.tokenizer.encoding=3"],
            "data.tokenizer.encoding=3: allowed",
        ),
    ],
)
def test_what_does_not_fit_together_is_told_before_anything_is_read(
    tmp_path: Path, overrides: list[str], said: str
) -> None:
    with pytest.raises(UserError) as error:
        build_corpus(config(tmp_path, *overrides))

    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_the_identity_is_of_the_content_wherever_it_is(text_folder: Path, tmp_path: Path) -> None:
    chosen = ["data=text", "data/tokenizer=file", "data.tokenizer.end_of_text=e", "data.batch_size=2"]
    found = []
    for place in ("here", "there"):
        folder = tmp_path / place
        shutil.copytree(text_folder, folder / "text")
        train_tokenizer([words(1, 500)], 300).save(str(folder / "tokenizer.json"))
        paths = [f"data.path={folder / 'text'}", f"data.tokenizer.path={folder / 'tokenizer.json'}"]
        cfg = config(tmp_path, *chosen, *paths)
        found += [open_corpus(cfg).identity, corpus_identity(cfg)]
        cfg.data.tokenizer.end_of_text = "f"
        assert corpus_identity(cfg) not in found

    assert len(set(found)) == 1


def test_the_coordinator_can_prepare_tokens_without_torch() -> None:
    code = "import sys, redline.data; "
    slow = ("torch", "datasets", "ftfy", "datasketch", "tiktoken", "scipy")
    code += f"sys.exit(' '.join({{*{slow}}} & {{*sys.modules}}) or 0)"

    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src")
