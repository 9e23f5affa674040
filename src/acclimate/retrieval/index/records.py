"""What goes into an index and comes out of it, and what every backend refuses.

Shapes: N rows, D dimensions. Vectors are float32 unit rows; a backend may keep them as float16.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from acclimate.core.filters import Filter, Metadata, Scalar, Value, scalar
from acclimate.core.fusion import CONSTANT, best, reciprocal_rank_fusion
from acclimate.errors import DataError, UsageError
from acclimate.text_use import SpaceId

Vectors: TypeAlias = NDArray[np.float32]
Mode: TypeAlias = Literal["dense", "lexical", "hybrid"]
MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")

MAX_ID_BYTES = 1024
"""In UTF-8: what a B-tree of Postgres takes, with room to spare."""
MAX_TEXT_CHARACTERS = 10_000_000
MAX_METADATA_BYTES = 65_536
"""As JSON in UTF-8."""
MAX_TOP_K = 10_000
TIES = 16
"""Results asked for beyond the last place, so that equal scores there are ordered by id."""
UNIT_TOLERANCE = 0.01
"""How far a unit vector's length may be from 1; bfloat16 and float16 stay below it."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be found: a whole document, or a chunk that remembers which document it is from, and where."""

    id: str
    text: str
    metadata: Metadata = field(default_factory=dict)
    parent: str | None = None
    """The id of the document that a chunk was cut from."""
    start: int | None = None
    """Where the chunk begins in its document's text, in characters."""
    end: int | None = None
    """Where it ends: `text == document[start:end]`."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as an index holds it, with its vector."""

    document: Document
    vector: Vectors
    """[D]."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that answers a query."""

    document: Document
    score: float
    """dense: cosine; lexical: BM25; hybrid: the sum of weighted reciprocal ranks."""

    @property
    def id(self) -> str:
        return self.document.id

    @property
    def text(self) -> str:
        return self.document.text

    @property
    def metadata(self) -> Metadata:
        return self.document.metadata


@dataclass(frozen=True, slots=True)
class Fusion:
    """How the dense and the lexical ranking become one; the run's dev split chooses the values."""

    constant: float = CONSTANT
    dense_weight: float = 1.0
    lexical_weight: float = 1.0
    depth: int = 100
    """Documents taken of each ranking; at least top_k."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question to an index."""

    text: str | None = None
    """Searched in lexical and hybrid mode."""
    vector: Vectors | None = None
    """[D], a unit vector of the index's space; searched in dense and hybrid mode."""
    mode: Mode = "hybrid"
    top_k: int = 10
    filter: Filter | None = None
    fusion: Fusion = field(default_factory=Fusion)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"mode is {self.mode!r}", possible=", ".join(MODES))
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise UsageError(f"top_k is {self.top_k}", possible=f"1 to {MAX_TOP_K:,}")
        if self.mode != "lexical" and self.vector is None:
            raise UsageError(
                f"a search in mode {self.mode} has no vector", fix="Encode the query, or search lexically."
            )
        if self.mode != "dense" and self.text is None:
            raise UsageError(f"a search in mode {self.mode} has no text", fix="Give the text, or search densely.")

    @property
    def depth(self) -> int:
        """How many documents each ranking has to give."""
        return max(self.top_k, self.fusion.depth) if self.mode == "hybrid" else self.top_k


Ranking: TypeAlias = Mapping[str, float]
"""Id -> score, best first."""


def fused(query: Query, dense: Ranking, lexical: Ranking) -> list[tuple[str, float]]:
    """The first `top_k` of a query's answer: the one ranking of its mode, or both fused."""
    match query.mode:
        case "dense":
            found = best(dense)
        case "lexical":
            found = best(lexical)
        case "hybrid":
            fusion = query.fusion
            rankings = [[name for name, _ in best(ranking)[: query.depth]] for ranking in (dense, lexical)]
            weights = [fusion.dense_weight, fusion.lexical_weight]
            found = list(reciprocal_rank_fusion(rankings, weights, fusion.constant).items())
    return found[: query.top_k]


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What an index says about itself."""

    backend: str
    place: str
    """Folder or address, without credentials."""
    documents: int
    space: SpaceId
    details: Mapping[str, Any]
    """What only this backend has to say: name -> a value of JSON."""


def metadata_of(values: Mapping[str, Any]) -> dict[str, Value]:
    """Metadata out of values of JSON: lists become tuples; None and empty lists are missing fields.

    Raises:
        UsageError: a value that is neither text, finite number, truth value nor a list of them.
    """
    found: dict[str, Value] = {}
    for name, value in values.items():
        if isinstance(value, list | tuple):
            items: tuple[Scalar, ...] = tuple(scalar(item) for item in value)
            if items:
                found[name] = items
        elif value is not None:
            found[name] = scalar(value)
    return found


def metadata_json(metadata: Metadata) -> str:
    """Metadata as JSON text."""
    return json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))


def problem(document: Document) -> str | None:
    """Why no index takes this document, in words; None where all do."""
    if not document.id or "\0" in document.id or not _is_unicode(document.id):
        return "an id is empty, or has a NUL or half of a surrogate pair in it"
    if (size := len(document.id.encode())) > MAX_ID_BYTES:
        return f"an id has {size:,} bytes, {MAX_ID_BYTES:,} are possible"
    if document.parent is not None and (found := problem(Document(document.parent, ""))):
        return f"its document: {found}"
    if len(document.text) > MAX_TEXT_CHARACTERS:
        return f"a text has {len(document.text):,} characters, {MAX_TEXT_CHARACTERS:,} are possible: cut it into chunks"
    if "\0" in document.text or not _is_unicode(document.text):
        return "a text has a NUL or half of a surrogate pair in it"
    try:
        text = metadata_json(metadata_of(document.metadata))
    except UsageError as error:
        return f"metadata: {error.found}, not {error.possible}"
    if not all(name and "\0" not in name for name in document.metadata) or "\\u0000" in text or not _is_unicode(text):
        return "metadata has an empty name, a NUL or half of a surrogate pair in it"
    if (size := len(text.encode())) > MAX_METADATA_BYTES:
        return f"metadata has {size:,} bytes, {MAX_METADATA_BYTES:,} are possible"
    return None


def check_rows(documents: Sequence[Document], vectors: Vectors, space: SpaceId) -> Vectors:
    """Check what shall be written, and return its vectors as float32 [N, D].

    Raises:
        DataError: a document that no index takes, an id that is there twice, or vectors that are not unit rows of the
            space, one for each document.
    """
    seen: set[str] = set()
    for document in documents:
        if found := problem(document):
            raise DataError(f"document {document.id[:60]!r}: {found}")
        if document.id in seen:
            raise DataError(f"document {document.id[:60]!r} is there twice in one call", fix="Give every id once.")
        seen.add(document.id)
    if np.shape(vectors)[:1] != (len(documents),):
        raise DataError(f"{len(documents)} documents have vectors of shape {np.shape(vectors)}")
    return check_vectors(vectors, space, [document.id for document in documents])


def check_vectors(vectors: Vectors, space: SpaceId, names: Sequence[str]) -> Vectors:
    """Check vectors that shall be written or searched for, and return them as float32 [N, D].

    Args:
        vectors: [N, D].
        space: of the index.
        names: what each row belongs to, for the message.

    Raises:
        DataError: another number of dimensions, not finite, or not of length 1.
    """
    rows: Vectors = np.ascontiguousarray(vectors, np.float32)
    if rows.ndim != 2 or (len(rows) and rows.shape[1] != space.dim):
        raise DataError(f"vectors have the shape {rows.shape}", possible=f"rows of {space.dim} dimensions")
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
    if len(wrong):
        row = int(wrong[0])
        what = (
            f"has the length {lengths[row]:.3g}" if np.isfinite(rows[row]).all() else "has values that are not finite"
        )
        raise DataError(f"the vector of {names[row][:60]!r} {what}", possible="a vector of length 1")
    return rows


def searched_vector(query: Query, space: SpaceId) -> Vectors:
    """Return the vector of a query, float32 [D], after the check of `check_vectors`."""
    row: Vectors = check_vectors(np.asarray(query.vector)[None], space, ["the query"])[0]
    return row


def check_space(index: SpaceId, searched: SpaceId, place: str) -> None:
    """Refuse another space than the index's.

    Raises:
        UsageError: naming all that differs.
    """
    differences = index.differences(searched)
    if differences:
        said = "; ".join(
            f"{name}: {_shown(mine)} here, {_shown(theirs)} there" for name, (mine, theirs) in differences.items()
        )
        raise UsageError(
            f"the index {place} holds vectors of another space than the encoder's ({said}; here is the index)",
            fix="Search it with the model that it was made with, or make an index with this one.",
        )


def _shown(value: Any) -> str:
    text = "none" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 24 else text[:23] + "…"


def _is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
