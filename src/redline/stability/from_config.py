"""The rules that `conf/divergence/` names."""

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate


def build_rules(specs: Mapping[Any, Any], kind: type) -> dict[str, Any]:
    """Those rules of a configuration that are judged at the moment ``kind`` stands for, by name."""
    rules = {str(name): instantiate(spec) for name, spec in specs.items() if spec is not None}
    return {name: rule for name, rule in rules.items() if isinstance(rule, kind)}
