"""What a loss uses besides the model in training: other models' vectors of the texts, and terms.

The vectors of a guide, a teacher and the base do not change while a model trains. They are computed once, by `Encoder`
and through the cache, and looked up in every step.

Legend: N texts, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acclimate.configs import DomainConfig, ObjectiveConfig
from acclimate.core.lexicon import Lexicon
from acclimate.core.lora import adapters_off
from acclimate.counting import are, counted
from acclimate.data.background import texts_of_source
from acclimate.data.facts import evenly
from acclimate.data.held_out import HeldOut
from acclimate.data.lexicon import domain_hashes
from acclimate.data.readers import source_hash
from acclimate.errors import DataError, UsageError
from acclimate.evaluation.vocabulary import domain_vocabulary
from acclimate.models.devices import to_device
from acclimate.models.encoder import Encoder
from acclimate.models.text_encoder import TextEncoder
from acclimate.progress import say
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.runs.resolve import base_of, load, resolve
from acclimate.text_use import LoadSettings
from acclimate.types import Role

ROLES: tuple[Role, Role] = ("query", "document")
MAX_RETAINED = 4000
"""Most out-of-domain texts that are retained: a step takes few of them, more would be encoded for nothing."""


class FixedVectors:
    """Vectors that do not change: looked up by text, never computed.

    Args:
        vectors: role -> text -> [D].
        device: where the loss is computed.
    """

    def __init__(self, vectors: Mapping[Role, Mapping[str, np.ndarray]], device: torch.device) -> None:
        self._vectors, self._device = vectors, device

    def __call__(self, role: Role, texts: Sequence[str]) -> Tensor:
        """Look up unit rows [N, D] of texts in one role."""
        return self.rows([(role, text) for text in texts])

    def rows(self, texts: Sequence[tuple[Role, str]]) -> Tensor:
        """Look up unit rows [N, D] of at least one text."""
        return to_device(torch.from_numpy(np.stack([self._vectors[role][text] for role, text in texts])), self._device)


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The models and the terms that the objective names; None where it names none."""

    guide: TextEncoder | None = None
    """Decides which candidates are likely positives."""
    teacher: TextEncoder | None = None
    """Its vectors are imitated."""
    base: Encoder | None = None
    """The model before training: this encoder with its adapters off, or the base loaded again."""
    retained: tuple[str, ...] = ()
    """Out-of-domain texts whose vectors should stay the base's; if empty, the training's own texts are meant."""
    retained_excluded: int = 0
    """How many texts are not retained because dev or test holds them."""
    lexicon: Lexicon | None = None
    """Terms that lower the adaptive temperature."""
    document_vectors: Mapping[str, np.ndarray] | None = None
    """The documents' vectors where they do not change (`sides="query"`). They cost nothing then, so all negatives of an
    example are candidates instead of a few."""
    cache: Path | None = None
    """Folder in which vectors are kept."""

    def vectors(
        self, encoder: TextEncoder, texts: Iterable[tuple[Role, str]], label: str, task: str | None = None
    ) -> FixedVectors:
        """Encode a training's texts with one of these models.

        Args:
            encoder: the guide, the teacher or the base.
            texts: (role, text).
            label: what the progress bar says.
            task: whose prompts are used; the encoder's default ones if not given.
        """
        texts_of: dict[Role, dict[str, None]] = {role: {} for role in ROLES}
        for role, text in texts:
            texts_of[role].setdefault(text)
        by_role: dict[Role, Mapping[str, np.ndarray]] = {}
        with adapters_off(self.base.model) if self.base is not None and encoder is self.base else nullcontext():
            for role, unique in texts_of.items():
                ordered = list(unique)
                vectors_ND = encode_corpus(encoder, ordered, self.cache, label, role=role, task=task)
                by_role[role] = dict(zip(ordered, vectors_ND, strict=True))
        return FixedVectors(by_role, encoder.device)


def load_references(
    objective: ObjectiveConfig,
    encoder: Encoder,
    cache: Path | None = None,
    *,
    models: Callable[[str], TextEncoder] = load,
    base: Callable[[], Encoder] | None = None,
    document_vectors: Mapping[str, np.ndarray] | None = None,
    lexicon: Lexicon | None = None,
    held_out: HeldOut | None = None,
) -> References:
    """Load the models that the objective names, and the texts that it retains.

    Args:
        objective: says which.
        encoder: the encoder in training.
        cache: folder in which vectors are kept; nothing is kept if not given.
        models: gives the guide and the teacher by their names (`ModelsByName`).
        base: loads the model before training where `encoder` is trained whole, and has no adapter to switch off.
        document_vectors: the documents' vectors, where they do not change.
        lexicon: the terms of an adaptive temperature (`temperature_lexicon`).
        held_out: what the training must not be told: it is not retained.

    Raises:
        ModelError: a model cannot be loaded.
        DataError: the out-of-domain texts cannot be read, or all of them are held out.
    """
    before = None
    if objective.effective_retain_weight:
        before = encoder if base is None else base()
    retained, excluded = _retained_texts(objective.retain_data, held_out or HeldOut())
    return References(
        guide=None if objective.guide is None else models(objective.guide),
        teacher=None if objective.embedding_teacher is None else models(objective.embedding_teacher),
        base=before,
        retained=retained,
        retained_excluded=excluded,
        lexicon=lexicon,
        document_vectors=document_vectors,
        cache=cache,
    )


class ModelsByName:
    """Guides and teachers, each loaded once, also where several tasks name it.

    Args:
        model: the run's model, where the base of one that is an adapter may be.
        device: where they run.
        dtype: see `RunConfig.dtype`.
    """

    def __init__(self, model: str | None, *, device: str, dtype: str) -> None:
        self._model, self._machine = model, LoadSettings(device=device, dtype=dtype)
        self._loaded: dict[str, TextEncoder] = {}

    def __call__(self, name: str) -> TextEncoder:
        """Load a model.

        Raises:
            ModelError: it cannot be loaded.
        """
        if name not in self._loaded:
            self._loaded[name] = load(name, base=base_of(name, self._model), **self._machine)
        return self._loaded[name]


def temperature_lexicon(texts: Sequence[str], domain: DomainConfig, guard: Sequence[str], *, seed: int) -> Lexicon:
    """Read the terms that lower an adaptive temperature, or extract them.

    Args:
        texts: texts of the domain, from which a lexicon is extracted where none is given.
        domain: the lexicon, or how it is extracted.
        guard: data of other domains, from which terms are told apart.
        seed: fixes the samples.

    Raises:
        UsageError: there are no terms.
        DataError: the lexicon or the background cannot be read.
    """
    vocabulary = domain_vocabulary(texts, domain, guard, seed=seed)
    if not len(vocabulary.lexicon):
        raise UsageError(
            f"the adaptive temperature has no terms ({vocabulary.origin})",
            fix="Give a list of terms with --lexicon FILE, or texts of other kinds with --background.",
        )
    say(f"adaptive temperature by {counted(len(vocabulary.lexicon), 'terms')}, {vocabulary.origin}")
    return vocabulary.lexicon


def _retained_texts(source: str | None, held_out: HeldOut) -> tuple[tuple[str, ...], int]:
    """The texts, and how many were left out because dev, test or a guard holds them."""
    if source is None:
        return (), 0
    found = texts_of_source(source, held_out=False)
    texts = [text for text in found if not held_out.excludes(text, "retained")]
    excluded = len(found) - len(texts)
    if not texts:
        raise DataError(
            f"{source} holds no text but those of dev and test queries of this run or its guards, "
            "which must not be trained on",
            fix="Give --retain-data other texts than those that the model is tested with.",
        )
    chosen = evenly(texts, MAX_RETAINED)
    if excluded:
        say(
            f"{counted(excluded, 'texts')} of {source} {are(excluded)} in dev or test of this run or of a guard, and"
            " not retained"
        )
    say(f"retaining {counted(len(chosen), 'texts')} of {source}, of {len(texts):,}")
    return tuple(chosen), excluded


def reference_hashes(
    objective: ObjectiveConfig, domain: DomainConfig, guard: Sequence[str], *, model: str | None = None
) -> dict[str, str]:
    """Setting -> hash of what it names: inputs of the training.

    Args:
        objective: the models, and the texts to retain.
        domain: the lexicon of an adaptive temperature.
        guard: what its terms are told apart from.
        model: the run's model, where the base of a model that is an adapter may be.
    """
    names = {"guide": objective.guide, "embedding_teacher": objective.embedding_teacher}
    hashes = {setting: resolve(name, base=base_of(name, model)).sha256 for setting, name in names.items() if name}
    if objective.retain_data is not None:
        hashes["retain_data"] = source_hash(objective.retain_data)
    if objective.temperature_kind == "adaptive":
        hashes |= domain_hashes(domain, guard)
    return hashes
