"""Which module of a model is what: one map for each family of architectures, `conf/sites/`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from torch import nn

from redline.bounds import check_value
from redline.errors import UserError

_MAPS = Path(__file__).parents[1] / "conf/sites"
_APART, _TOGETHER = ("q", "k", "v"), ("qkv",)  # the linears that give q, k and v
_GUESS = "guess"


@dataclass(frozen=True)
class Family:
    """Paths of modules: those of `linears`, `attention`, `mlp` and `norms` in a block; `blocks`, `head` and
    ``norms.final`` in the whole model. A key of the configuration is one of transformers' `config.json`.
    """

    blocks: str
    head: str
    attention: str
    mlp: str | list[str]  # a module, or several that act one after the other
    linears: dict[str, str | list[str]]  # q, k, v or qkv; proj; fc1, several where the MLP has a gate; fc2
    norms: dict[str, str]  # site -> the model's own norm there, in models that have it
    types: list[str] = field(default_factory=list)  # `model_type` of the configurations that it is for
    by_head: bool = False  # qkv gives q, k and v of the first head, then those of the second, …
    parallel: bool | str = False  # the MLP reads the block's input too; or the key that says whether
    dropout: str | None = None  # the key for that of the branches, where the block does it
    caps: dict[str, str] = field(default_factory=dict)  # site -> the key for the model's own cap
    scaling: float | None = None  # of the scores, where it is not what the attention module says
    needs: dict[str, Any] = field(default_factory=dict)  # key -> what it must be

    @property
    def of_qkv(self) -> Sequence[str]:
        return _TOGETHER if _TOGETHER[0] in self.linears else _APART

    def paths(self, linear: str) -> list[str]:
        its = self.linears[linear]
        return [its] if isinstance(its, str) else its


def family_of(model_type: str, spec: Mapping[str, Any] | None, network: nn.Module) -> Family:
    """``spec``: what the user says of the sites; empty for what is known of the type. Raises UserError."""
    spec = dict(spec or {})
    if spec.pop(_GUESS, False):
        spec = {**guessed(network), **spec}
    elif not spec:
        spec = _known(model_type, network)
    hints = get_type_hints(Family)
    for key, value in spec.items():
        if key not in hints:
            raise UserError(f"sites.{key}: unknown key; allowed: {', '.join(hints)}")
        check_value(f"sites.{key}", value, hints[key])
    needed = [its.name for its in fields(Family) if its.default is its.default_factory is MISSING]
    for key in needed:
        if key not in spec:
            raise UserError(f"sites.{key}: not set; allowed: as the files of conf/sites/ have it")
    family = Family(**spec)
    for linear in (*family.of_qkv, "proj", "fc1", "fc2"):
        if linear not in family.linears:
            raise UserError(f"sites.linears.{linear}: not set; allowed: the path of a linear in a block")
    return family


def _known(model_type: str, network: nn.Module) -> dict[str, Any]:
    for path in sorted(_MAPS.glob("*.yaml")):
        spec: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        if model_type in spec.get("types", []):
            return spec
    raise UserError(
        f"sites: no file of conf/sites/ is for the type {model_type}; by names it could be "
        f"{json.dumps(guessed(network))}; allowed: sites=guess to take that, with sites.KEY=… for what is "
        "wrong, or a file of yours"
    )


def guessed(network: Any) -> dict[str, Any]:
    """A map of an unknown model, by the names of its parts. Raises UserError where they say too little."""
    lists = {name: its for name, its in network.named_modules() if isinstance(its, nn.ModuleList)}
    blocks = max(lists, key=lambda name: len([*lists[name].modules()]), default=None)
    output = network.get_output_embeddings()
    head = next((name for name, its in network.named_modules() if its is output), None)
    if blocks is None or head is None:
        raise UserError("sites: the model has no list of blocks, or no head; allowed: a file of yours")
    linears = [name for name, its in lists[blocks][0].named_modules() if _is_linear(its)]
    norms = [name for name, its in lists[blocks][0].named_modules() if is_norm(its)]
    of_attention = [name for name in linears if "att" in name.rpartition(".")[0]]
    of_mlp = [name for name in linears if name not in of_attention]
    found: dict[str, Any] = {"qkv": _named(of_attention, "qkv", "c_attn", "query_key_value", "W_pack")}
    if found["qkv"] is None:
        found = {site: _named(of_attention, f"{site}_", f"w{site}", site) for site in _APART}
    found["proj"] = next((name for name in of_attention if name not in found.values()), None)
    found["fc2"] = _named(of_mlp, "down", "fc2", "c_proj", "w2", "dense_4h", "fc_out")
    first = [name for name in of_mlp if name != found["fc2"]]
    found["fc1"] = first[0] if len(first) == 1 else first or None
    after = [name for name, its in network.named_modules() if is_norm(its) and not name.startswith(blocks)]
    if None in found.values() or len(norms) != 2 or not after:
        raise UserError(
            f"sites: cannot tell what the linears {', '.join(linears)} and the norms {', '.join(norms)} of a "
            "block are; allowed: a file of yours, as those of conf/sites/"
        )
    return {
        "blocks": blocks,
        "head": head,
        "attention": found["proj"].rpartition(".")[0],
        "mlp": found["fc2"].rpartition(".")[0],
        "linears": found,
        "norms": {"attn_in": norms[0], "mlp_in": norms[1], "final": after[-1]},
    }


def _named(paths: Sequence[str], *words: str) -> str | None:
    """The first whose last part begins with the first of the words that any begins with."""
    return next((its for word in words for its in paths if its.rpartition(".")[2].startswith(word)), None)


def _is_linear(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.ndim == 2


def is_norm(module: nn.Module) -> bool:
    """By its name: transformers has a class for each family."""
    return "norm" in type(module).__name__.lower()
