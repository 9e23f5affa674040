"""The temperature of a training: fixed, learned, or by the domain's terms in each anchor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence

import torch
from torch import Tensor, nn

from acclimate.configs import ObjectiveConfig
from acclimate.core.lexicon import Lexicon
from acclimate.core.losses import adaptive_temperature, learned_temperature
from acclimate.core.losses.temperature import log_excess
from acclimate.errors import UsageError
from acclimate.models.devices import to_device

LEARNED = "log_temperature"
"""Name of the trainable parameter, after `<task>.` where there is a task."""


class Temperature:
    """The temperature of a training: it divides the cosines of a batch's anchors.

    Args:
        config: which kind, and its numbers.
        anchors: all anchors of the training.
        lexicon: the domain's terms, for the adaptive kind.
        learned: gets the parameter of the learned kind.
        task: distinguishes the parameters of several tasks.
        device: where the loss is computed.

    Raises:
        UsageError: the adaptive kind has no lexicon, or there is nowhere to put a learned parameter.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        anchors: Iterable[str],
        *,
        lexicon: Lexicon | None,
        learned: MutableMapping[str, nn.Parameter] | None,
        task: str | None,
        device: torch.device,
    ) -> None:
        self._fixed, self._device = config.temperature, device
        self._by_anchor: dict[str, float] | None = None
        self.parameters: list[nn.Parameter] = []
        if config.temperature_kind == "adaptive":
            if lexicon is None:
                raise UsageError("the adaptive temperature needs a lexicon", fix="Give one with --lexicon FILE.")
            self._by_anchor = {
                anchor: adaptive_temperature(
                    lexicon.count(anchor),
                    base=config.temperature_base,
                    step=config.temperature_step,
                    floor=config.temperature_floor,
                )
                for anchor in dict.fromkeys(anchors)
            }
        elif config.temperature_kind == "learned":
            if learned is None:
                raise UsageError("a learned temperature is trained: give the recipe `learned`, and its content to fit")
            name = LEARNED if task is None else f"{task}.{LEARNED}"
            start = torch.tensor(log_excess(config.temperature), dtype=torch.float32, device=device)
            # A recipe made anew during the training (other negatives) goes on with the parameter that is there.
            self.parameters = [learned.setdefault(name, nn.Parameter(start))]

    def __call__(self, anchors: Sequence[str]) -> float | Tensor:
        """One number for all, or [N] in the order of the anchors."""
        if self._by_anchor is not None:
            return to_device(torch.tensor([self._by_anchor[anchor] for anchor in anchors]), self._device)
        if self.parameters:
            return learned_temperature(self.parameters[0])
        return self._fixed

    def metrics(self) -> dict[str, float | Tensor]:
        """The numbers to log: the current value, where it is learned."""
        if not self.parameters:
            return {}
        return {"temperature": learned_temperature(self.parameters[0].detach())}


def learned_temperatures(parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
    """Name (`temperature`, or `<task>.temperature`) -> value, of the learned temperatures among trained parameters."""
    return {
        name.removesuffix(LEARNED) + "temperature": float(learned_temperature(parameter.detach()))
        for name, parameter in parameters.items()
        if name.split(".")[-1] == LEARNED and parameter.ndim == 0
    }
