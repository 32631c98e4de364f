"""A network of transformers as a model of ours: token ids in, logits out, and a map of its parts."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from redline.bounds import check_value, shown
from redline.errors import UserError, did_you_mean
from redline.huggingface.attention import NAME, register
from redline.huggingface.family import family_of
from redline.huggingface.surgery import Surgery
from redline.model import MappedModel, SiteMap, Transform
from redline.parts import told

_LAYERS, _LENGTH = "num_hidden_layers", "max_position_embeddings"
_SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id")
_WRITTEN = ("model_type", "transformers_version")  # into a configuration, and not read from it
_SMALL: Final = {"num_layers": 1, "vocab_size": 64, "sequence_length": 16}


class HuggingFace(MappedModel):
    """Token ids (B,T) to logits (B,T,V), by a decoder-only network of transformers.

    One of ``type``, ``config`` (path of a config.json) and ``path`` (folder with a config.json and weights,
    which are then the initial ones; else the network's own code draws them). ``overrides``: keys of the
    configuration and their values. ``num_layers``: null for those of the configuration. ``sites``: see
    `family_of`. ``transforms`` and ``norm_layer``: see `Surgery`. Raises UserError for what cannot be built.
    """

    def __init__(
        self,
        transforms: Mapping[str, Sequence[Transform]],
        norm_layer: Callable[..., nn.Module] | None,
        init: Callable[..., Any] | None,
        *,
        type: str | None,
        config: str | None,
        path: str | None,
        overrides: dict[str, Any],
        vocab_size: Annotated[int, Ge(1), Le(2**24)],
        sequence_length: Annotated[int, Ge(1), Le(2**24)],
        num_layers: Annotated[int, Ge(1), Le(1000)] | None,
        attention: Literal["auto", "fused", "explicit"],
        sites: dict[str, Any] | None,
    ) -> None:
        super().__init__()
        if init is not None:
            raise UserError("init: the model's own code draws its weights; allowed: init=native")
        transformers = _transformers()
        register()
        given = {"type": type, "config": config, "path": path}
        settings = _settings(transformers, given, overrides, vocab_size, num_layers, sequence_length)
        network = _network(transformers, settings, path)
        family = family_of(settings.model_type, sites, network)
        surgery = Surgery(network, family, transforms, norm_layer, attention)
        cap = surgery.cap("logits")
        self.sites = surgery.operate()
        self.network = network
        self.logits = surgery.stream.at("logits") if cap is None else cap
        for key in family.caps.values():
            setattr(network.config, key, None)  # the sites' modules do it

    def forward(self, tokens_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = self.logits(self.network(tokens_BT, use_cache=False).logits)
        return logits_BTV

    @property
    def site_map(self) -> SiteMap:
        return self.sites

    @staticmethod
    def small(arguments: dict[str, Any]) -> dict[str, Any]:
        given = {name: arguments[name] for name in _SMALL if arguments[name] is not None}
        small = {name: min(most, given.get(name, most)) for name, most in _SMALL.items()}
        path = arguments["path"]
        config = arguments["config"] if path is None else str(Path(path, "config.json"))
        return {**arguments, **small, "path": None, "config": config}


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "model: transformers is not installed; allowed after: pip install 'redline[huggingface]'"
        ) from error
    return transformers


def _settings(
    transformers: Any,
    given: Mapping[str, str | None],
    overrides: Mapping[str, Any],
    vocab_size: int,
    num_layers: int | None,
    sequence_length: int,
) -> Any:
    """Their configuration object. Raises UserError."""
    named = [key for key, value in given.items() if value is not None]
    if len(named) != 1:
        told_of = ", ".join(f"model.{key}={shown(given[key])}" for key in named) or "model.type=null"
        raise UserError(f"{told_of}: allowed: one of model.type, model.config and model.path")
    [key] = named
    read = {} if key == "type" else _read(key, str(given[key]))
    name = str(read.pop("model_type", given["type"]))
    kind = _kind(transformers, f"model.{key}={shown(given[key])}", name)
    plain = kind()
    for override in overrides:
        if not hasattr(plain, override):
            hint = did_you_mean(override, vars(plain))
            raise UserError(
                f"model.overrides.{override}: {kind.__name__} has no such key{hint}; allowed: its"
            )
    if given["path"] is None:
        # A padding token's embedding is not trained; here it is a token as any other.
        read |= {special: None for special in _SPECIAL} | {"vocab_size": vocab_size}
    elif read.get("vocab_size") != vocab_size:
        raise UserError(
            f"model.vocab_size={vocab_size}: the weights of model.path are for {read.get('vocab_size')} "
            "tokens; allowed: that, with data/tokenizer=file and its tokenizer.json"
        )
    # Whatever their configuration says of values that it cannot take.
    try:
        settings = kind(**{**read, **overrides})
        if num_layers is not None:
            settings = kind(**_cut(settings, num_layers))
    except Exception as error:
        raise UserError(f"model.overrides: {told(error)}; allowed: what {kind.__name__} takes") from error
    longest = getattr(settings, _LENGTH, None)
    if longest is not None and longest < sequence_length:
        if given["path"] is not None:
            raise UserError(f"data.sequence_length={sequence_length}: allowed by model.path: up to {longest}")
        setattr(settings, _LENGTH, sequence_length)
    return settings


def _kind(transformers: Any, told_of: str, name: str) -> Any:
    """The class of its configuration."""
    known = transformers.CONFIG_MAPPING
    if name not in known or known[name] not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        near = [its for its in known if its.startswith(name[:3])][:5]
        raise UserError(
            f"{told_of}: transformers {transformers.__version__} has no language model of the type {name}; "
            f"allowed: its model_type, such as {', '.join(near or ['llama', 'gpt2'])}"
        )
    return known[name]


def _read(key: str, path: str) -> dict[str, Any]:
    file = Path(path, "config.json") if key == "path" else Path(path)
    try:
        read: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"model.{key}={path}: {told(error)}; allowed: that of a config.json") from error
    check_value(f"model.{key}", read, dict[str, Any])
    if "model_type" not in read:
        raise UserError(f"model.{key}={path}: says no model_type; allowed: a config.json of transformers")
    found: dict[str, Any] = read
    return found


def _cut(settings: Any, num_layers: int) -> dict[str, Any]:
    """Its values for so many layers; a list of a value for each layer is cut, too."""
    before = getattr(settings, _LAYERS)
    cut = {
        key: its[:num_layers] if isinstance(its, list) and len(its) == before else its
        for key, its in settings.to_dict().items()
        if key not in _WRITTEN
    }
    return {**cut, settings.attribute_map.get(_LAYERS, _LAYERS): num_layers}


def _network(transformers: Any, settings: Any, path: str | None) -> Any:
    kind = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)]
    if not kind._supports_attention_backend:
        raise UserError(
            f"model: the code of the type {settings.model_type} computes attention by itself, where no site "
            "can be reached; allowed: a type that uses transformers' attention interface"
        )
    auto = transformers.AutoModelForCausalLM
    if path is None or torch.get_default_device().type == "meta":
        return auto.from_config(settings, attn_implementation=NAME)
    # Weights may be stored in bf16; what is trained is what trainer.precision says.
    return auto.from_pretrained(
        path, config=settings, attn_implementation=NAME, local_files_only=True, dtype=torch.float32
    )
