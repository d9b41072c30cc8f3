"""How many of a layer's routed experts one token uses, watched while the model is traced."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlx.nn as nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from tbcluster.model.hooks import call_layer, hooked
from tbcluster.model.trace import DECODE

# By name, for a model that cannot be traced.
CONFIG_KEYS = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_top_k",
    "moe_topk",
    "top_k_experts",
    "moe_k",
)


class ExpertWatch:
    """Watches mlx-lm's matmuls of stacked experts, which are told the experts of each token.

    Attributes:
        used: Path of the module -> experts that one token uses.
    """

    def __init__(self, model: nn.Module) -> None:
        self._paths = {id(module): path for path, module in switch_linears(model).items()}
        self._modules = list(switch_linears(model).values())
        self._run = -1
        self.used: dict[str, int] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the model for the length of a block."""
        with hooked(self._modules, self):
            yield

    def begin_run(self) -> None:
        """The next forward pass begins."""
        self._run += 1

    def on_call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Count in the run of one token (see `hooks.LayerObserver`)."""
        if self._run == DECODE:
            indices = kwargs["indices"] if "indices" in kwargs else args[1]
            path = self._paths[id(layer)]
            self.used[path] = max(self.used.get(path, 0), int(indices.size))
        return call_layer(layer, args, kwargs)


def switch_linears(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> module, for all stacks of routed experts; the first axis of their weights counts
    the experts."""
    kinds = (SwitchLinear, QuantizedSwitchLinear)
    return {path: module for path, module in model.named_modules() if isinstance(module, kinds)}


def experts_by_config(config: Mapping[str, Any]) -> int | None:
    """Experts that one token uses, as a config says; None if it does not."""
    text_config = config.get("text_config")
    for part in (text_config if isinstance(text_config, dict) else {}, config):
        for key in CONFIG_KEYS:
            if isinstance(part.get(key), int):
                return int(part[key])
    return None
