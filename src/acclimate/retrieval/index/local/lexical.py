"""Search by words: tantivy over what was built in, and beside it the rows that changed since, scored directly.

tantivy gets the terms of our own analyser, parted by spaces, so that the baseline, the index and other backends agree
on what a word is. Its BM25, with the weight of each term set right for the documents that it does not have yet, names
candidates; these are scored again as in `retrieval.bm25`, because tantivy rounds the lengths of texts with more than 40
terms, and takes the mean length of its own documents only.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tantivy
from numpy.typing import NDArray

from acclimate.core.analyser import Analyser
from acclimate.retrieval.bm25 import K1, B
from acclimate.retrieval.index.local.checkpoints import MANIFEST, Checkpoint
from acclimate.retrieval.index.local.store import Change

Mask = NDArray[np.bool_]

KIND = "lexical"
WRITER_BYTES = 128_000_000
"""Memory of a writer before it begins a new segment."""
MAX_TERMS = 256
"""Terms of a query that are searched for: the rarest ones."""
ROW_COST = 15
"""What an allowed row costs that tantivy is told by name, in hits that it is asked for beyond those wanted."""
SPARE = 64
"""Hits asked for beyond those wanted: tantivy's order is not quite the exact one, and of equal scores at the end the
ids decide."""
BETWEEN = "  "
"""Between two terms of a stored text: each has a space on either side, by which its occurrences are counted."""
OWN_FILES = ("meta.json", ".managed.json")
"""Files that tantivy writes anew; all others of its folder never change."""


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("row", indexed=True, fast=True)
    builder.add_text_field("terms", stored=True, tokenizer_name="terms", index_option="freq")
    return builder.build()


SCHEMA = _schema()


class Lexical:
    """tantivy's index, and the rows that are newer than it."""

    def __init__(self, analyser: Analyser, checkpoint: Checkpoint | None = None) -> None:
        """Open a checkpoint; without one nothing is built in yet."""
        self.analyser = analyser
        self.folder = None if checkpoint is None else checkpoint.folder
        self.searcher: Any = None if self.folder is None else _open(self.folder).searcher()
        self.documents = 0 if self.folder is None else _documents(self.folder)
        facts = {"rows": 0, "terms": 0} if checkpoint is None else checkpoint.facts
        self.counted_rows, self.counted_terms = int(facts["rows"]), int(facts["terms"])
        self.counts: dict[int, Counter[str]] = {}
        """Row -> its terms, of the changed rows that are there."""
        self.length = 0
        """Terms of all of those together."""
        self.holding: dict[str, set[int]] = {}
        """Term -> the changed rows that hold it."""
        self.unread: dict[int, str | None] = {}
        """Row -> its changed text, until a search needs its terms: a dense search does not wait for them."""
        self.stale: set[int] = set()
        """Rows whose text in tantivy, if there is one, is not theirs any more."""
        self.saved_seq = -1 if checkpoint is None else checkpoint.seq
        """The last change in the checkpoint."""
        self.seq = max(self.saved_seq, 0)
        """The last change that is in here."""

    def update(self, row: int, text: str | None) -> None:
        """Note that a row has another text now, or (None) is gone."""
        self.unread[row] = text

    def _read(self) -> None:
        """Take in the terms of the texts that have changed."""
        for row, text in self.unread.items():
            self.stale.add(row)
            former = self.counts.pop(row, Counter())
            self.length -= former.total()
            for term in former:
                self.holding[term].discard(row)
            if text is not None:
                self.counts[row] = counts = Counter(self.analyser.terms(text))
                self.length += counts.total()
                for term in counts:
                    self.holding.setdefault(term, set()).add(row)
        self.unread.clear()

    def write(self, folder: Path, changes: Iterable[Change]) -> Mapping[str, Any]:
        """Write what is built in and some changes into an empty folder.

        Args:
            folder: the files that never change are linked there, not copied.
            changes: all that happened since it was written.

        Returns:
            The rows and terms that were ever counted, for the mean length of a text.
        """
        if self.folder is not None:
            for path in self.folder.iterdir():
                if path.name != MANIFEST:
                    _take(path, folder)
        index = _open(folder)
        writer = index.writer(heap_size=WRITER_BYTES, num_threads=1)
        rows, terms = self.counted_rows, self.counted_terms
        for change in changes:
            if self.folder is not None:
                writer.delete_documents_by_query(tantivy.Query.term_query(SCHEMA, "row", change.row))
            if change.text is not None:
                found = self.analyser.terms(change.text)
                rows, terms = rows + 1, terms + len(found)
                document = tantivy.Document()
                document.add_unsigned("row", change.row)
                document.add_text("terms", f" {BETWEEN.join(found)} ")
                writer.add_document(document)
        writer.commit()
        writer.wait_merging_threads()
        for lock in folder.glob("*.lock"):
            lock.unlink()
        return {"rows": rows, "terms": terms}

    def rows(self) -> int:
        """How many rows can be found."""
        self._read()
        if self.searcher is None:
            return len(self.counts)
        if not self.stale:
            return int(self.searcher.num_docs)
        stale = tantivy.Query.term_set_query(SCHEMA, "row", list(self.stale))
        gone = len(self.searcher.search(stale, len(self.stale), count=False).hits)
        return int(self.searcher.num_docs) - gone + len(self.counts)

    def search(self, text: str, top_k: int, allowed: Mask | None) -> dict[int, float]:
        """The scores of the best rows, in any order; a row without any of the query's terms is not found.

        Args:
            text: the query's.
            top_k: how many are wanted.
            allowed: [R], the rows that may be found; all if not given.
        """
        self._read()
        counts = Counter(self.analyser.terms(text))
        built_in = {term: 0 if self.searcher is None else self.searcher.doc_freq("terms", term) for term in counts}
        weights = self._weights(counts, built_in)
        scores = self._newer(weights, allowed)
        if self.searcher is not None and weights:
            scores |= self._built_in(self._query(weights, built_in), weights, top_k, allowed)
        return scores

    def _weights(self, counts: Counter[str], built_in: Mapping[str, int]) -> dict[str, float]:
        """Term -> its count in the query times its idf over all documents, of the terms that are in one.

        Args:
            counts: of the query's terms.
            built_in: term -> how many documents hold it in tantivy's index.
        """
        documents = len(self.counts) + self.documents
        weights = {}
        for term, count in counts.items():
            if holding := len(self.holding.get(term, ())) + built_in[term]:
                weights[term] = count * _idf(documents, holding)
        return dict(sorted(weights.items(), key=lambda item: -item[1])[:MAX_TERMS])

    def _newer(self, weights: Mapping[str, float], allowed: Mask | None) -> dict[int, float]:
        rows = {row for term in weights for row in self.holding.get(term, ())}
        passing = ((row, self.counts[row]) for row in rows if allowed is None or allowed[row])
        return {row: self._score(weights, counts.total(), counts.__getitem__) for row, counts in passing}

    def _score(self, weights: Mapping[str, float], length: int, count: Callable[[str], int]) -> float:
        """BM25 of a text of so many terms, by how often each one is in it."""
        mean = max((self.counted_terms + self.length) / max(self.counted_rows + len(self.counts), 1), 1e-9)
        norm = K1 * (1 - B + B * length / mean)
        return sum(weight * found / (found + norm) for term, weight in weights.items() if (found := count(term)))

    def _built_in(
        self, query: tantivy.Query, weights: Mapping[str, float], top_k: int, allowed: Mask | None
    ) -> dict[int, float]:
        limit = top_k + SPARE
        if allowed is not None:
            passing = np.flatnonzero(allowed)
            more = limit * max(1, self.documents // max(1, len(passing)))
            if ROW_COST * len(passing) < more:
                query = tantivy.Query.boolean_query(
                    [(tantivy.Occur.Must, _one_of(passing)), (tantivy.Occur.Must, query)]
                )
            else:
                limit = more
        while True:
            hits = self.searcher.search(query, limit, count=False).hits
            rows = np.array(self.searcher.fast_field_values("row", [address for _, address in hits]), np.int64)
            kept = ~np.isin(rows, np.fromiter(self.stale, np.int64, len(self.stale)))
            if allowed is not None:
                kept &= allowed[rows]
            places = np.flatnonzero(kept)
            if len(places) >= top_k or len(hits) < limit:
                best = places[: top_k + SPARE].tolist()
                return {int(rows[place]): self._score_built_in(hits[place][1], weights) for place in best}
            limit *= 4

    def _score_built_in(self, address: Any, weights: Mapping[str, float]) -> float:
        text = self.searcher.doc(address)["terms"][0]
        return self._score(weights, text.count(BETWEEN) + 1, lambda term: text.count(f" {term} "))

    def _query(self, weights: Mapping[str, float], built_in: Mapping[str, int]) -> tantivy.Query:
        """The weighted sum of the terms' scores, with our idf in place of tantivy's and without its factor K1 + 1."""
        parts = []
        for term, weight in weights.items():
            if holding := built_in[term]:
                theirs = (K1 + 1) * _idf(self.documents, holding)
                one = tantivy.Query.term_query(SCHEMA, "terms", term, "freq")
                parts.append((tantivy.Occur.Should, tantivy.Query.boost_query(one, weight / theirs)))
        return tantivy.Query.boolean_query(parts)


def _one_of(rows: NDArray[np.int64]) -> tantivy.Query:
    """A query for rows by their numbers, which adds nothing to the score; a set of terms takes twice as long."""
    parts = [(tantivy.Occur.Should, tantivy.Query.term_query(SCHEMA, "row", row)) for row in rows.tolist()]
    return tantivy.Query.const_score_query(tantivy.Query.boolean_query(parts), 0.0)


def _idf(documents: int, holding: int) -> float:
    return math.log1p((documents - holding + 0.5) / (holding + 0.5))


def _open(folder: Path) -> tantivy.Index:
    """tantivy's index of a folder, an empty one where there is none."""
    index = tantivy.Index(SCHEMA, path=str(folder))
    index.register_tokenizer("terms", tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
    return index


def _documents(folder: Path) -> int:
    """How many documents tantivy counts in its statistics: deleted ones too, until their segment is merged."""
    return sum(segment["max_doc"] for segment in json.loads((folder / "meta.json").read_text())["segments"])


def _take(path: Path, folder: Path) -> None:
    """Give a folder a file of another one: linked where the file never changes and the disk has links."""
    if path.name not in OWN_FILES:
        with contextlib.suppress(OSError):
            os.link(path, folder / path.name)
            return
    shutil.copyfile(path, folder / path.name)
