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
        self._fixed, self._device, self._lowest = config.effective_temperature, device, config.lowest_learned
        self._by_anchor: dict[str, float] | None = None
        self.parameters: list[nn.Parameter] = []
        if config.temperature_kind == "adaptive":
            if lexicon is None:
                raise UsageError("the adaptive temperature needs a lexicon", fix="Give one with --lexicon FILE.")
            base, step, floor = config.adaptive_temperatures
            self._by_anchor = {
                anchor: adaptive_temperature(lexicon.count(anchor), base=base, step=step, floor=floor)
                for anchor in dict.fromkeys(anchors)
            }
        elif config.temperature_kind == "learned":
            if learned is None:
                raise UsageError("a learned temperature is trained: give the recipe `learned`, and its content to fit")
            name = LEARNED if task is None else f"{task}.{LEARNED}"
            start = torch.tensor(log_excess(self._fixed, self._lowest), dtype=torch.float32, device=device)
            # A recipe made anew during the training (other negatives) goes on with the parameter that is there.
            self.parameters = [learned.setdefault(name, nn.Parameter(start))]

    def __call__(self, anchors: Sequence[str]) -> float | Tensor:
        """One number for all, or [N] in the order of the anchors."""
        if self._by_anchor is not None:
            return to_device(torch.tensor([self._by_anchor[anchor] for anchor in anchors]), self._device)
        if self.parameters:
            return learned_temperature(self.parameters[0], self._lowest)
        return self._fixed

    def metrics(self) -> dict[str, float | Tensor]:
        """The numbers to log: the current value, where it is learned."""
        if not self.parameters:
            return {}
        return {"temperature": learned_temperature(self.parameters[0].detach(), self._lowest)}


def learned_temperatures(
    parameters: Mapping[str, nn.Parameter], objectives: Mapping[str | None, ObjectiveConfig]
) -> dict[str, float]:
    """Collect the learned temperatures among trained parameters.

    Args:
        parameters: all that were trained.
        objectives: task (None where there is one without a name) -> the objective that it was trained with.

    Returns:
        `temperature`, or `<task>.temperature` -> value.
    """
    found = {}
    for task, objective in objectives.items():
        prefix = "" if task is None else f"{task}."
        if (parameter := parameters.get(prefix + LEARNED)) is not None:
            value = learned_temperature(parameter.detach(), objective.lowest_learned)
            found[f"{prefix}temperature"] = float(value)
    return found
