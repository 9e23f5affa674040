"""The semantic cache on a stated stream: hit rate, false hits with their bound, what they cost and save.

The stream, in an order drawn anew for each seed, every text once (a repetition would be the exact cache's):
- banking77_en: all its questions; the result of a question is its intent, so that another intent is another result;
- pawsx_zh: both sentences of every pair; those of a pair with label 1 have one result, those with label 0 two, though
  they are made of the same words;
- reversals: a trip from A to B asked for in ten ways, for ordered pairs of cities: the way back is another result.
Nothing but the texts is told to the cache; whether a result is right is what a computed one is compared by, as the
service compares lists of documents. Beside it: the same without the vetoes, and a fixed threshold on the cosine, which
is what most caches have.

    python benchmarks/semantic_cache.py --data FOLDER_WITH_THE_DATA --out FOLDER
    python benchmarks/semantic_cache.py --data FOLDER_WITH_THE_DATA --out FOLDER --times

Vectors (MiniLM's) are kept in --out, and so is what each seed of a part has found. `--times` measures what a look into
a full cache takes and what a hit saves: some seconds, on a quiet machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from acclimate.core.wording import veto
from acclimate.models.encoder import Encoder
from acclimate.models.reranker import Reranker
from acclimate.retrieval.semantic_cache import SemanticCache, upper_bound
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
    parser.add_argument("--times", action="store_true", help="measure nothing but times")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    asked = stream(arguments.data)
    vectors = encoded(arguments.out / "vectors.npy", [one.text for one in asked])
    print(f"{machine()}; {len(asked):,} questions, {len({one.result for one in asked}):,} results\n")
    if arguments.times:
        order = np.random.default_rng(0).permutation(len(asked))
        found_ms = times([asked[place] for place in order], vectors[order])
        print(", ".join(f"{name} {ms:.2f} ms" for name, ms in found_ms.items()))
        return
    found: dict[str, list[dict[str, list[int]]]] = {}
    for name, run in WAYS_OF_SERVING.items():
        for seed in range(1 if name in FIXED_WAYS else arguments.seeds):
            kept = arguments.out / f"{name}, seed {seed}.json"
            if not kept.exists():
                order = np.random.default_rng(seed).permutation(len(asked))
                kept.write_text(json.dumps(run([asked[place] for place in order], vectors[order], seed)))
            found.setdefault(name, []).append(json.loads(kept.read_text()))
    header = ("", "part", "questions", "hits", "hit rate", "false hits", "of the hits", "at most (95 %)", "of all")
    print(table(header, [row for name, parts in found.items() for row in shown(name, parts)]))


def stream(data: Path) -> list[Asked]:
    """All questions, each text once."""
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
    return list(found.values())


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
        np.save(path, Encoder.load("sentence-transformers/all-MiniLM-L6-v2").encode(texts, "query", label="questions"))
    vectors: np.ndarray = np.load(path)
    assert len(vectors) == len(texts)
    return vectors


def one_run(asked: list[Asked], vectors: np.ndarray, seed: int, vetoes: Any = veto) -> dict[str, list[int]]:
    """The stream through the cache: part -> questions, hits, false hits."""
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


def fixed_run(asked: list[Asked], vectors: np.ndarray, _: int, *, cosine: float) -> dict[str, list[int]]:
    """The same with a fixed threshold: what is nearest serves where it is near enough, else it becomes an entry."""
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


Way = Callable[[list[Asked], np.ndarray, int], dict[str, list[int]]]
FIXED_WAYS: dict[str, Way] = {f"cosine above {cosine:g}": partial(fixed_run, cosine=cosine) for cosine in FIXED}
"""Nothing is drawn in them: they see the first seed's order only."""
WAYS_OF_SERVING: dict[str, Way] = {
    "semantic cache": one_run,
    "without vetoes": partial(one_run, vetoes=None),
    **FIXED_WAYS,
}
"""What is compared: name -> a run over the stream, with a seed."""


def shown(name: str, runs: list[dict[str, list[int]]]) -> list[list[str]]:
    """A row for each part, summed over the seeds, and one of all parts for each seed and for all.

    The seeds ask the same questions in another order: a bound over their sum takes their hits for independent, which
    they are not quite; that of each seed needs no such thing.
    """
    rows = {part: np.sum([run[part] for run in runs], 0) for part in sorted(runs[0])}
    rows |= {f"all, seed {seed}": np.sum(list(run.values()), 0) for seed, run in enumerate(runs)}
    rows["all"] = np.sum([list(run.values()) for run in runs], (0, 1))
    found = []
    for part, (count, hits, wrong) in rows.items():
        share = f"{wrong / hits:.2%}" if hits else "-"
        bound = f"{upper_bound(int(wrong), int(hits), CONFIDENCE):.2%}" if hits else "-"
        rates = (f"{hits / count:.2%}", f"{wrong:,}", share, bound, f"{wrong / count:.3%}")
        found.append([name, part, f"{count:,}", f"{hits:,}", *rates])
    return found


def times(asked: list[Asked], vectors: np.ndarray) -> dict[str, float]:
    """Median milliseconds of a look into a full cache, and of reranking, which a hit saves."""
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
