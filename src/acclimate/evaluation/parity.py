"""Whether an export gives the vectors of the model that it was made from, and whether its INT8 form may take its place.

Shapes: N texts or queries, M documents, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from acclimate.data.dataset import Dataset
from acclimate.data.facts import evenly
from acclimate.models.text_encoder import TextEncoder
from acclimate.types import PAIR_ROLE, ROLES, Role

SAME = 0.9999
"""Cosine from which on two float32 vectors are of the same model."""
SAME_SCORE = 1e-3
"""Largest difference of two raw logits of one model in float32, as a share of 1 and of the logit's size."""
PER_QUERY = 2
"""Texts for each query, where a reranker is compared."""
OF_EACH = 8
"""Number of texts of each kind, per role: the shortest, the longest, those between."""
SAMPLE = (
    "rice",
    "How do I list the files of a folder?",
    "The harvest of 2021 was 3.4 % below that of the year before; wheat lost most, barley least.",
    "水稻病虫害防治方法",
    "Größere Äcker brauchen mehr Wasser, kleinere mehr Zeit.",
)
"""For a model without a run."""

Texts = Mapping[Role, Sequence[str]]


class Parity(TypedDict):
    """How near an export's vectors are to those of the model that it was made from."""

    reader: str
    texts: int
    min_cosine: float
    mean_cosine: float
    worst: str
    """The text of the smallest cosine, its first characters."""


def parity_texts(data: Dataset | None, encoder: TextEncoder) -> dict[Role, list[str]]:
    """Choose real texts of a run, the shortest, the longest and some between, and for each role one beyond the limit.

    Args:
        data: the run's; sentences of our own if there is none.
        encoder: whose limit it is.
    """
    found = {role: _spread(texts) for role, texts in _texts(data).items()}
    for role, texts in found.items():
        longest = max(texts, key=len, default=SAMPLE[1])
        tokens = max(1, int(encoder.tokenise([longest], role).lengths[0]))
        # Tokens of a cut text are as many as the limit: a few more copies than that are beyond it anyway.
        texts.append(" ".join([longest] * (encoder.use.max_tokens // tokens + 2)))
    return found


def below_limit(texts: Texts, encoder: TextEncoder) -> dict[Role, list[str]]:
    """Shorten texts until none reaches the limit of tokens: for a reader that does not cut by itself.

    Args:
        texts: of both roles.
        encoder: whose limit it is.
    """
    found: dict[Role, list[str]] = {role: [] for role in ROLES}
    for role in ROLES:
        for text in texts[role]:
            while text and encoder.tokenise([text], role).lengths[0] >= encoder.use.max_tokens:
                text = text[: 3 * len(text) // 4]
            found[role].append(text)
    return found


def parity(
    reference: TextEncoder, read: Callable[[Sequence[str], Role], NDArray[np.float32]], texts: Texts, reader: str
) -> Parity:
    """Compare two ways to vectors, text by text.

    Args:
        reference: the model that was exported.
        read: the export; unit rows.
        texts: of both roles.
        reader: what read the export.
    """
    worst = ""
    cosines: list[float] = []
    for role in ROLES:
        expected_ND, found_ND = reference.encode(texts[role], role), np.asarray(read(texts[role], role), np.float32)
        cosine_N = np.einsum("nd,nd->n", expected_ND, found_ND)
        if cosine_N.min() <= min(cosines, default=np.inf):
            worst = texts[role][int(cosine_N.argmin())]
        cosines.extend(cosine_N.tolist())
    return {
        "reader": reader,
        "texts": len(cosines),
        "min_cosine": float(min(cosines)),
        "mean_cosine": float(np.mean(cosines)),
        "worst": worst[:200],
    }


class ScoreParity(TypedDict):
    """How near an exported reranker's scores are to those of the model that it was made from."""

    reader: str
    pairs: int
    max_difference: float
    """The largest difference of two raw logits."""
    mean_difference: float
    """The mean difference, without its sign."""
    spread: float
    """Standard deviation of the model's own logits over these pairs."""
    worst: str
    """The text of the pair with the largest difference, its first characters."""


def parity_pairs(data: Dataset | None, fits: Callable[[str, str], bool]) -> list[tuple[str, str]]:
    """Choose real queries and texts of a run, short and long ones, each query with several texts.

    Args:
        data: the run's; sentences of our own if there is none.
        fits: whether a pair is within the limit of tokens; longer ones are shortened.
    """
    texts = {role: _spread(found) for role, found in _texts(data).items()}
    pairs = []
    for number, query in enumerate(texts["query"]):
        for step in range(PER_QUERY):
            text = texts["document"][(number + step * len(texts["query"])) % len(texts["document"])]
            while len(query) + len(text) > 2 and not fits(query, text):
                query, text = (side[: max(1, 3 * len(side) // 4)] for side in (query, text))
            pairs.append((query, text))
    return list(dict.fromkeys(pairs))


def score_parity(
    expected: NDArray[np.float32], found: NDArray[np.float32], pairs: Sequence[tuple[str, str]], reader: str
) -> ScoreParity:
    """Compare two rerankers' raw logits, pair by pair.

    Args:
        expected: of the model that was exported, [N].
        found: of the export, [N].
        pairs: N queries and texts.
        reader: what read the export.
    """
    difference = np.abs(np.asarray(found, np.float64) - expected)
    return {
        "reader": reader,
        "pairs": len(pairs),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "spread": float(np.std(expected)),
        "worst": pairs[int(difference.argmax())][1][:200],
    }


def _texts(data: Dataset | None) -> dict[Role, list[str]]:
    if data is None:
        return {role: list(SAMPLE) for role in ROLES}
    if data.kind == "pairs":
        pairs = [pair for split in data.pairs.values() for pair in split]
        sentences = [text for pair in pairs for text in (pair.sentence1, pair.sentence2)]
        return {role: sentences if role == PAIR_ROLE else sentences[:OF_EACH] for role in ROLES}
    return {"query": list(data.queries.values()), "document": list(data.corpus.values())}


def _spread(texts: Sequence[str]) -> list[str]:
    """A few short, long and middling ones."""
    by_length = sorted(dict.fromkeys(texts), key=len)
    if len(by_length) <= 3 * OF_EACH:
        return by_length
    between: Any = evenly(by_length[OF_EACH:-OF_EACH], OF_EACH)
    return [*by_length[:OF_EACH], *between, *by_length[-OF_EACH:]]
