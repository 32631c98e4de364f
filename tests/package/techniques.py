"""Writes docs/techniques.md from the comments and values of conf/: `make techniques`."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/techniques.md"
HEAD = """# Techniques

```
redline search norm=qk optimizer=adamw,muon gradient=zclip loss=z_loss
```

All choices of the training stack, by the group of the configuration that they belong to. Any can be combined;
what cannot work together is refused before any training. [The recipe](recipe.md) tells how they are used,
[variants](variants.md) what a norm strategy is, [text](text.md) how data are prepared. `experiment=remedies`
compares remedies for an unstable run.

`make techniques` writes this page from the files in `conf/`. Do not edit it.
"""
GROUPS = {  # what a reader looks for, in this order
    "norm": "Norm strategies",
    "norm_layer": "Norm layers",
    "init": "Initialisation",
    "optimizer": "Optimizers",
    "schedule": "Schedules",
    "loss": "Losses and regularisers, added to cross entropy",
    "gradient": "Gradients",
    "data/steps": "Data preparation",
    "data/tokenizer": "Tokenizers",
    "monitor/taps": "Monitoring",
}
LISTS = ("loss", "gradient", "data/steps", "monitor/taps")  # groups that take several files
SETTINGS = {  # plain values: the file and the keys of its group
    "model/_base": ("dropout", "attention_dropout", "embedding_dropout", "token_dropout"),
    "trainer/default": ("precision", "allow_emulated", "accumulate"),
}
FACTS = ("source", "package", "test")
_HEADER = "# @package "


@dataclass(frozen=True)
class Technique:
    """One file of conf/: what its comments say, and the values that it sets itself."""

    path: Path
    does: str
    source: str
    package: str
    test: str
    values: str


def techniques(group: str) -> list[Technique]:
    paths = sorted((ROOT / "conf" / group).glob("[!_]*.yaml"))
    return [read(path) for path in paths]


def read(path: Path) -> Technique:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = []
    for line in lines:
        if not line.startswith("#"):
            break
        if not line.startswith(_HEADER):
            comments.append(line.removeprefix("#").strip())
    does, *more = comments
    facts = {name: "" for name in FACTS}
    for line in more:
        name, _, value = line.partition(": ")
        if name in facts:
            facts[name] = value
    return Technique(path, does.removesuffix(".").removesuffix(":"), **facts, values=own_values(path))


def own_values(path: Path) -> str:
    """The numbers and words that the file sets, without what they belong to where that is long."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    content.pop("defaults", None)
    found = [f"{key}={shown(value)}" for key, value in leaves(content)]
    return ", ".join(dict.fromkeys(found))


def leaves(node: Any, key: str = "") -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        inner = [(name, its) for name, its in node.items() if name not in ("_target_", "_partial_")]
        return [leaf for name, its in inner for leaf in leaves(its, f"{key}.{name}".strip("."))]
    if isinstance(node, list) and any(isinstance(its, dict) for its in node):
        return [leaf for its in node for leaf in leaves(its, key)]
    return [] if node is None or "${" in str(node) else [(key, node)]


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def linked(text: str) -> str:
    """arXiv numbers as links."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def settings(file: str, keys: Sequence[str]) -> list[list[str]]:
    """Key, default and comment of a file's lines."""
    lines = (ROOT / f"conf/{file}.yaml").read_text(encoding="utf-8").splitlines()
    found = {line.partition(":")[0]: line.partition(":")[2] for line in lines}
    split = {key: found[key].partition("#") for key in keys}
    group = Path(file).parent.name
    return [
        [f"`{group}.{key}`", f"`{value.strip()}`", linked(comment.strip())]
        for key, (value, _, comment) in split.items()
    ]


def page() -> str:
    parts = [HEAD]
    for group, title in GROUPS.items():
        rows = techniques(group)
        if not rows:
            continue
        parts.append(f"## {title}\n")
        headings = ("choice", "what it does", "defaults", "source", "package", "test")
        parts += [row(headings), row(["---"] * len(headings))]
        for its in rows:
            name = f"[{its.path.stem}]" if group in LISTS else its.path.stem
            values = its.values and f"`{its.values}`"
            test = its.test and f"[{Path(its.test).name}](../{its.test})"
            parts.append(row([f"`{group}={name}`", its.does, values, linked(its.source), its.package, test]))
        parts.append("")
    parts += ["## Settings", "", row(("key", "default", "what it does")), row(["---"] * 3)]
    parts += [row(cells) for file, keys in SETTINGS.items() for cells in settings(file, keys)]
    parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
