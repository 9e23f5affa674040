"""Documents, one after the other, into samples of pairs and of passages; goes on where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from acclimate.data.documents import SourceDocument
from acclimate.pairing.made_pair import MadePair
from acclimate.pairing.passages import Passage, passaged
from acclimate.pairing.sampling import Sample, restore, save
from acclimate.pairing.sources import MAKERS, pairs_of

CHECKPOINT_DOCUMENTS = 50_000
"""Documents between two writes of what is known so far."""
PASSAGES = "passages"


@dataclass
class Streamed:
    """What the documents gave."""

    pairs: dict[str, Sample]
    """Source -> a sample of its pairs, as rows."""
    passages: Sample
    """Rows of `_id`, `text`, `document`."""
    documents: int = 0
    wanted: dict[str, list[Passage]] = field(default_factory=dict)
    """All passages of the documents that were asked for, by the document's id."""

    @property
    def samples(self) -> dict[str, Sample]:
        """All samples by name."""
        return {**self.pairs, PASSAGES: self.passages}

    def made(self, source: str) -> list[MadePair]:
        """The pairs of one source, in the order of the draw."""
        return [MadePair.of(row) for row in self.pairs[source]]


def streamed(
    documents: Iterable[SourceDocument],
    sources: Sequence[str],
    *,
    words: int,
    pairs_limit: int,
    passages_limit: int,
    seed: int,
    wanted: Mapping[str, Any],
    state: Path,
    key: str,
    advance: Callable[[int], None] = lambda _: None,
    checkpoint: int = CHECKPOINT_DOCUMENTS,
) -> Streamed:
    """Make pairs and passages of documents, in memory that does not grow with them.

    Args:
        documents: in an order that is always the same.
        sources: names in `sources.MAKERS`; others are made later.
        words: the most units of a passage.
        pairs_limit: pairs kept of each source, drawn evenly from all.
        passages_limit: passages kept, likewise.
        seed: of all draws.
        wanted: ids of documents all of whose passages are kept.
        state: a folder for what is known so far.
        key: a hash of whatever the result depends on: a state with another key is of another making.
        advance: told how many documents are done.
        checkpoint: documents between two writes of the state.
    """
    made = Streamed(
        {source: Sample(pairs_limit, seed, source) for source in sources if source in MAKERS},
        Sample(passages_limit, seed, PASSAGES),
    )
    before = restore(state, made.samples, key)
    made.documents = before.get("documents", 0)
    made.wanted = {name: [Passage(*row) for row in rows] for name, rows in before.get("wanted", {}).items()}
    advance(made.documents)
    for document in islice(documents, made.documents, None):
        _take(document, made, words, seed, wanted)
        made.documents += 1
        advance(1)
        if made.documents % checkpoint == 0:
            more = {"key": key, "documents": made.documents, "wanted": made.wanted}
            save(state, made.samples, more)
    return made


def _take(document: SourceDocument, made: Streamed, words: int, seed: int, wanted: Mapping[str, Any]) -> None:
    cut = passaged(document, words)
    for passage in cut.passages:
        row = {"_id": passage.id, "text": passage.text, "document": cut.id}
        made.passages.offer((passage.text,), row)
    if cut.id in wanted:
        made.wanted.setdefault(cut.id, []).extend(cut.passages)
    for source, sample in made.pairs.items():
        for pair in pairs_of(cut, source, seed):
            sample.offer((pair.query, pair.positive), pair.row())
