"""`index RUN --adopt`: an index that somebody else made and writes, searched with the run's model."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.configs import RunConfig
from acclimate.core.analyser import language_of
from acclimate.errors import DataError, UsageError
from acclimate.evaluation.lexical import variants
from acclimate.models.text_encoder import TextEncoder
from acclimate.retrieval.index.adopting import SAMPLED, Likeness, likeness
from acclimate.retrieval.index.header import Adopted, Header
from acclimate.retrieval.index.opening import backend_of
from acclimate.retrieval.index.records import Stored
from acclimate.runs.opening import load_base, load_current
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task


def adopt_index(run: Path, place: str, config: RunConfig) -> dict[str, Any]:
    """Record the space of an index that is there, if its vectors are those that the run's model gives its texts.

    Nothing of its documents is changed, and nothing is written later: whoever writes it goes on doing so.

    Args:
        run: the run's folder.
        place: the address of a collection of Qdrant or of a table of Postgres.
        config: `text_field` and `vector_field`: where texts and vectors are.

    Returns:
        {"place", "documents", "space", "sampled", "median_cosine", "least_cosine"}: of stored vectors with those of
        their texts, encoded now.

    Raises:
        UsageError: a place that cannot be adopted; no text field; other fields there; vectors of another model, with
            the cosines.
        DataError: there is no document, or none has a text.
        StorageError: the server does not answer.
    """
    task = one_task(run, config)
    adopt = backend_of(place).adopt
    if adopt is None:
        raise UsageError(f"{place} cannot be adopted", possible="qdrant://…, postgresql://…")
    if config.index.text_field is None:
        raise UsageError("--adopt without --text-field", fix="Name the field, or column, that holds the texts.")
    adapter = RunFolder(run).adapter
    encoder = load_current(adapter, config.model, **task.config.loading)
    adopted = Adopted(config.index.text_field, config.index.vector_field)
    header = Header(encoder.space, adopted=adopted)
    with closing(adopt(place, header)) as index:
        drawn = index.sample(SAMPLED)
        sample = [stored for stored in drawn if stored.document.text.strip()]
        if not sample:
            raise DataError(
                f"{place}: of {len(drawn)} documents none has a text in {adopted.text_field!r}",
                possible=", ".join(sorted({name for stored in drawn for name in stored.document.metadata})),
                fix="Name the field that holds the texts: --text-field.",
            )
        found = _compare(encoder, sample)
        if not found.is_the_same:
            base = load_base(adapter, config.model, **task.config.loading)
            raise _refusal(place, found, encoder, base, sample)
        analyser = next(iter(variants(language_of(stored.document.text for stored in sample)).values()))
        index.record(dataclasses.replace(header, analyser=analyser))
        count = index.count()
    return {
        "place": place,
        "documents": count,
        "space": dataclasses.asdict(encoder.space),
        **{name: getattr(found, name) for name in ("sampled", "median_cosine", "least_cosine")},
    }


def _compare(encoder: TextEncoder, sample: list[Stored]) -> Likeness:
    other = next((stored for stored in sample if stored.vector.shape != (encoder.space.dim,)), None)
    if other is not None:
        raise UsageError(
            f"the vector of {other.document.id[:60]!r} has {len(other.vector)} dimensions",
            possible=f"{encoder.space.dim}, the model's",
        )
    encoded_ND = encoder.encode([stored.document.text for stored in sample], "document")
    return likeness(np.stack([stored.vector for stored in sample]), encoded_ND)


def _refusal(place: str, found: Likeness, encoder: TextEncoder, base: TextEncoder, sample: list[Stored]) -> UsageError:
    """The error for vectors that are not the run's, and whose they are if they are its base's."""
    if found.share and not found.are_units:
        return UsageError(
            f"{place}: the vectors are not of length 1; {found}", fix="Divide them by their lengths, then adopt again."
        )
    if encoder.space != base.space and _compare(base, sample).is_the_same:
        return UsageError(
            f"{place} holds the vectors of the base model, and the run's adapter changes documents; {found}",
            fix="Adapt the queries only (acclimate adapt … --sides query), or encode the documents again.",
        )
    return UsageError(
        f"{place}: the vectors are not the run's model's; {found}",
        fix="Check --text-field and --vector-field, and the prompt, pooling and dimensions that they were made with.",
    )
