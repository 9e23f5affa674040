"""The scale of a training: temperature and in-batch margin, in units of the spread of the base's cosines.

They are settled before the first step and stay, also when the training is resumed.

Legend: N queries, M texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from acclimate import processes
from acclimate.configs.objective import TEMPERATURE_SPREADS, ObjectiveConfig
from acclimate.core.lora import adapters_off
from acclimate.core.spread import DOCUMENTS, QUERIES, sampled, spread
from acclimate.files import read_json, storage_errors, write_json
from acclimate.formats.families import find_family
from acclimate.models.encoder import Encoder
from acclimate.progress import say
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.training.reports import Scale
from acclimate.training.task_training import TrainingTask
from acclimate.types import PAIR_ROLE

WITH_TEMPERATURE = ("info-nce", "cosent", "angle", "binary", "kl")
"""The losses that a temperature divides cosines in."""


def settle_scales(parts: Sequence[TrainingTask], encoder: Encoder, kept: Path, identity: str) -> list[Scale | None]:
    """Give every task's objective its temperature and its margin as numbers; says which, and where they come from.

    All processes have to call this.

    Args:
        parts: the tasks; their settings are changed.
        encoder: the encoder in training; its adapters are switched off here.
        kept: the file in which the spreads are kept for a training that is resumed.
        identity: hash of everything that the training depends on; spreads of another training are measured again.

    Returns:
        what is reported of each task; None where its loss has no temperature.
    """
    found = processes.on_main(lambda: _kept(kept, identity))
    spreads = found or [_spread(part, part.encoder(encoder)) if _needs_spread(part) else None for part in parts]
    spreads = processes.from_main(spreads)
    if found is None and processes.is_main():
        with storage_errors(kept):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, {"training": identity, "spreads": spreads})
    return [_settled(part, encoder.source.id, unit) for part, unit in zip(parts, spreads, strict=True)]


def _kept(path: Path, identity: str) -> list[float | None] | None:
    if not path.is_file():
        return None
    values = read_json(path)
    spreads: list[float | None] = values["spreads"]
    return spreads if values["training"] == identity else None


def _needs_spread(part: TrainingTask) -> bool:
    """Whether anything of the objective is in units of the spread."""
    objective = part.task.config.objective
    if part.loss not in WITH_TEMPERATURE:
        return False
    return objective.temperature is None or (part.loss == "info-nce" and objective.effective_spread_margin is not None)


def _spread(part: TrainingTask, encoder: Encoder) -> float:
    """Measure the spread of the base's cosines of some of the task's queries and of its texts."""
    seed = part.task.config.seed
    positives: dict[str, set[str]] = {}
    for example in part.examples:
        positives.setdefault(example.anchor, {example.anchor}).add(example.positive)
    anchors, texts = list(positives), list(dict.fromkeys(part.texts))
    anchors = [anchors[place] for place in sampled(len(anchors), QUERIES, seed)]
    texts = [texts[place] for place in sampled(len(texts), DOCUMENTS, seed)]
    label, role = "measure the spread of the base's cosines", PAIR_ROLE if part.data.kind == "pairs" else "document"
    with adapters_off(encoder.model):
        query_ND = encode_corpus(encoder, anchors, None, role="query")
        document_MD = encode_corpus(encoder, texts, None, label, role=role)
    usable_NM = np.array([[text not in positives[anchor] for text in texts] for anchor in anchors], np.bool_)
    return spread(query_ND @ document_MD.T, usable_NM)


def _settled(part: TrainingTask, model: str, unit: float | None) -> Scale | None:
    """Put the numbers into the task's settings, and say where they come from."""
    config = part.task.config
    objective, origin = config.objective, "as given"
    if part.loss not in WITH_TEMPERATURE:
        return None
    if objective.temperature is None:
        temperature, origin = _temperature(model, unit)
        objective = replace(objective, temperature=temperature)
    margin = objective.effective_spread_margin
    if part.loss == "info-nce" and margin is not None:
        objective = _with_margin(objective, margin * (unit or 0.0))
    part.task = replace(part.task, config=replace(config, objective=objective))
    masked = objective.false_negative_margin if part.loss == "info-nce" else None
    mask = "" if masked is None else f"; in-batch candidates above the positive + {masked:.4g} are no negatives"
    say(f"{part.task.label}temperature {objective.effective_temperature:.4g}, {origin}{mask}")
    return {
        "temperature": objective.effective_temperature,
        "temperature_from": origin,
        "spread": unit,
        "false_negative_margin": masked,
    }


def _temperature(model: str, unit: float | None) -> tuple[float, str]:
    """The temperature where none is given, and where it comes from."""
    family = find_family(model)
    if family is not None and family.temperature is not None:
        return family.temperature, f"that of {model} by its authors"
    if unit:
        return TEMPERATURE_SPREADS * unit, f"{TEMPERATURE_SPREADS:g} of the base's spread {unit:.4g}"
    return ObjectiveConfig().effective_temperature, "because the base's spread could not be measured"


def _with_margin(objective: ObjectiveConfig, margin: float) -> ObjectiveConfig:
    """The objective with the margin in spreads as one in cosine; of two, the lower masks what either does."""
    given = objective.false_negative_margin
    lowest = margin if given is None else min(margin, given)
    return replace(objective, false_negative_margin=lowest, false_negative_spread_margin=None)
