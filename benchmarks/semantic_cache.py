"""The semantic cache on a stated stream: hit rate, false hits with their bound, what they cost and save.

The stream, in an order drawn with a fixed seed, every text once (a repetition would be the exact cache's):
- banking77_en: all its questions; the result of a question is its intent, so that another intent is another result;
- pawsx_zh: both sentences of every pair; those of a pair with label 1 have one result, those with label 0 two, though
  they are made of the same words;
- reversals: a trip from A to B asked for in ten ways, for ordered pairs of cities: the way back is another result.
Nothing but the texts is told to the cache; whether a result is right is what a computed one is compared by, as the
service compares lists of documents. Beside it: the same without the vetoes, and a fixed threshold on the cosine, which
is what most caches have.

    python benchmarks/semantic_cache.py --data FOLDER_WITH_THE_DATA --out FOLDER

Vectors (MiniLM's) are kept in --out, and so is what a part has found.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import machine, read_beir, table

CITIES = (
    *("Paris", "Rome", "Oslo", "Vienna", "Madrid", "Lisbon", "Athens", "Berlin", "Prague", "Dublin", "Helsinki"),
    *("Warsaw", "Geneva", "Milan", "Porto", "Lyon"),
)
WAYS = (
    "trains from {} to {}",
    "what does the trip from {} to {} cost",
    "how long does it take to get from {} to {}?",
    "I want to travel from {} to {}",
    "is there a direct connection from {} to {}",
    "book a ticket from {} to {} please",
    "when does the next train from {} leave for {}?",
    "cheapest way to go from {} to {}",
    "departing {}, arriving {}",
    "{} - {} one way",
)
FIXED = (0.85, 0.9, 0.95)
PASSAGES, PASSAGE_WORDS = 50, 60
CONFIDENCE = 0.95


class Asked(NamedTuple):
    """A question of the stream."""

    part: str
    text: str
    result: str


def main() -> None:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    asked = stream(arguments.data)
    vectors = encoded(arguments.out / "vectors.npy", [one.text for one in asked])
    print(f"{machine()}; {len(asked):,} questions, {len({one.result for one in asked}):,} results\n")
    found: dict[str, Any] = {}
    for name, run in ways(arguments.seeds).items():
        kept = arguments.out / f"{name}.json"
        if not kept.exists():
            kept.write_text(json.dumps(run(asked, vectors)))
        found[name] = json.loads(kept.read_text())
    header = ("", "part", "questions", "hits", "hit rate", "false hits", "of the hits", "at most (95 %)", "of all")
    print(table(header, [row for name, parts in found.items() for row in shown(name, parts)]))
    kept = arguments.out / "times.json"
    if not kept.exists():
        kept.write_text(json.dumps(times(asked, vectors)))
    print("\n" + ", ".join(f"{name} {ms:.2f} ms" for name, ms in json.loads(kept.read_text()).items()))


def stream(data: Path) -> list[Asked]:
    """All questions, each text once, in a drawn order."""
    found: dict[str, Asked] = {}
    _, queries, splits = read_beir(data / "banking77_en")
    for qrels in splits.values():
        for query, grades in qrels.items():
            text = queries[query]
            found.setdefault(text, Asked("banking77_en", text, f"intent {next(iter(grades))}"))
    found |= {one.text: one for one in sentences(data / "pawsx_zh")}
    for start, end in permutations(CITIES, 2):
        for way in WAYS:
            text = way.format(start, end)
            found[text] = Asked("reversals", text, f"from {start} to {end}")
    asked = list(found.values())
    random.Random(0).shuffle(asked)
    return asked


def sentences(folder: Path) -> list[Asked]:
    """The sentences of all pairs; those that pairs with label 1 connect have one result."""
    leads: dict[str, str] = {}

    def root(text: str) -> str:
        while leads.setdefault(text, text) != text:
            text = leads[text]
        return text

    for path in sorted((folder / "pairs").glob("*.tsv")):
        for one, other, label in list(csv.reader(path.open(encoding="utf-8"), delimiter="\t"))[1:]:
            first, second = root(one), root(other)
            if float(label) == 1:
                leads[first] = second
    return [Asked("pawsx_zh", text, f"meaning of {root(text)}") for text in leads]


def encoded(path: Path, texts: list[str]) -> np.ndarray:
    """Vectors of the embedded default model, made once."""
    if not path.exists():
        from acclimate.models.encoder import Encoder

        np.save(path, Encoder.load("sentence-transformers/all-MiniLM-L6-v2").encode(texts, "query", label="questions"))
    vectors: np.ndarray = np.load(path)
    assert len(vectors) == len(texts)
    return vectors


def ways(seeds: int) -> dict[str, Callable[[list[Asked], np.ndarray], Any]]:
    """What is compared: name -> a run over the stream."""
    from acclimate.core.wording import veto

    def learned(vetoes: Any) -> Callable[[list[Asked], np.ndarray], Any]:
        return lambda asked, vectors: [one_run(asked, vectors, seed, vetoes) for seed in range(seeds)]

    fixed: dict[str, Callable[[list[Asked], np.ndarray], Any]] = {
        f"cosine above {cosine:g}": lambda asked, vectors, cosine=cosine: [fixed_run(asked, vectors, cosine)]
        for cosine in FIXED
    }
    return {"semantic cache": learned(veto), "without vetoes": learned(None), **fixed}


def one_run(asked: list[Asked], vectors: np.ndarray, seed: int, vetoes: Any) -> dict[str, list[int]]:
    """The stream through the cache: part -> questions, hits, false hits."""
    from acclimate.retrieval.semantic_cache import SemanticCache

    cache = SemanticCache[str](lambda one, other: one == other, max_entries=100_000, seed=seed, vetoes=vetoes)
    counts: dict[str, list[int]] = {}
    for one, vector in zip(asked, vectors, strict=True):
        near = cache.look("all", 0, one.text, vector)
        of_part = counts.setdefault(one.part, [0, 0, 0])
        of_part[0] += 1
        if near is not None and near.serves:
            of_part[1] += 1
            of_part[2] += near.entry.result != one.result
        else:
            cache.computed("all", 0, one.text, vector, one.result, near)
    return counts


def fixed_run(asked: list[Asked], vectors: np.ndarray, cosine: float) -> dict[str, list[int]]:
    """The same with a fixed threshold: what is nearest serves where it is near enough, else it becomes an entry."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    results: list[str] = []
    counts: dict[str, list[int]] = {}
    for one, vector in zip(asked, vectors, strict=True):
        of_part = counts.setdefault(one.part, [0, 0, 0])
        of_part[0] += 1
        scores, places = index.search(vector[None], 1)
        if results and scores[0, 0] >= cosine:
            of_part[1] += 1
            of_part[2] += results[places[0, 0]] != one.result
        else:
            index.add(vector[None])
            results.append(one.result)
    return counts


def shown(name: str, runs: list[dict[str, list[int]]]) -> list[list[str]]:
    """A row for each part, and one for all, summed over the seeds."""
    from acclimate.retrieval.semantic_cache import upper_bound

    parts = {part: np.sum([run[part] for run in runs], 0) for part in sorted(runs[0])}
    rows = []
    for part, (count, hits, wrong) in {**parts, "all": np.sum(list(parts.values()), 0)}.items():
        share = f"{wrong / hits:.2%}" if hits else "-"
        bound = f"{upper_bound(int(wrong), int(hits), CONFIDENCE):.2%}" if hits else "-"
        rates = (f"{hits / count:.1%}", f"{wrong:,}", share, bound, f"{wrong / count:.3%}")
        rows.append([name, part, f"{count:,}", f"{hits:,}", *rates])
    return rows


def times(asked: list[Asked], vectors: np.ndarray) -> dict[str, float]:
    """Median milliseconds of a look into a full cache, and of reranking, which a hit saves."""
    from acclimate.models.reranker import Reranker
    from acclimate.retrieval.semantic_cache import SemanticCache

    cache = SemanticCache[str](lambda one, other: one == other, max_entries=100_000, seed=0)
    looks = []
    for one, vector in zip(asked, vectors, strict=True):
        started = time.perf_counter()
        near = cache.look("all", 0, one.text, vector)
        looks.append(1000 * (time.perf_counter() - started))
        if near is None or not near.serves:
            cache.computed("all", 0, one.text, vector, one.result, near)
    # A head that nobody has trained: the speed is that of a trained one.
    reranker = Reranker.load("sentence-transformers/all-MiniLM-L6-v2", head_seed=0)
    passages = [" ".join(["word"] * PASSAGE_WORDS + [str(number)]) for number in range(PASSAGES)]
    reranked = []
    for one in asked[:20]:
        started = time.perf_counter()
        reranker.score(one.text, passages)
        reranked.append(1000 * (time.perf_counter() - started))
    return {
        "a look (median)": statistics.median(looks[-5000:]),
        "a look (99 %)": float(np.percentile(looks[-5000:], 99)),
        f"reranking {PASSAGES} passages of {PASSAGE_WORDS} words": statistics.median(reranked),
    }


if __name__ == "__main__":
    main()
