"""Learning from feedback with simulated searchers, whose truth is known: what is promoted, and what is refused.

The data is cut to `--pairs` training queries and 500 test queries, with the documents that answer them. Half of the
training queries, those of other topics (by the first word of the answer: in NL2Bash the command), are withheld as the
future; 2,000 of the others are dev, because a margin of 0.01 takes a gate of that size. Searchers type the queries of
the future, four of 60 users each, and see the ten documents that the adapter in use finds; in half of the searches two
neighbours are in random order, as they were in 6,000 searches before, which say how places are looked at and nothing
else. They look at rank r with the probability 1 / r, and click on what they look at:

- useful: on a right document in 90 % of the cases, on another one in 5 %;
- places: on any document in half of the cases: clicks say nothing but places (A/A: feedback without news);
- random: they judge one of the documents that are shown, drawn by chance, to be relevant;
- adversarial: they click on a wrong document in 90 % of the cases, on a right one in 5 %.

Each trial is a refresh of the same run by other searchers; `rounds` are three useful ones in a row, each of a third of
the queries, with a guard, and with the queries of other data to retain.

    python benchmarks/feedback.py DATA --out FOLDER [--guard DATA] [--retain DATA] [--trials 20] [--kinds useful,random]
        [--minutes 30]

DATA is a BEIR folder. A trial that is finished is not run again, one that was interrupted goes on; after `--minutes` no
other one is begun. The table is of what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy.stats import t as students

if TYPE_CHECKING:
    from acclimate.feedback.records import Impression, Mark

from common import machine, once, read_beir, table

KINDS = ("useful", "places", "random", "adversarial", "rounds")
TEST_QUERIES, DEV_QUERIES = 500, 2000
SHOWN = 10
USERS, PER_QUERY = 60, 4
SWAPS = 0.5
SETTINGS: dict[str, Any] = {
    "refresh_steps": 24,
    "refresh_rate": 0.5,
    "later_fraction": 0.5,
    "gate_fraction": 0.85,
    "sign_flips": 1000,
}
TRAIN = {"sides": "query", "batch_size": 64, "epochs": 1.0, "dev_documents": 300, "rank": 8, "eval_steps": 4}
HISTORY, EARLIER_USERS = 6000, 600
ROUNDS = 3


def main() -> None:
    """Run what is missing within the time, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--guard", type=Path)
    parser.add_argument("--retain", type=Path)
    parser.add_argument("--pairs", type=int, default=12000, help="training queries of the data that are used")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--queries", type=int, default=5000, help="typed in a trial")
    parser.add_argument("--minutes", type=float, default=1e9)
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    shared = trained(arguments)
    for number in range(arguments.trials):
        for kind in arguments.kinds.split(","):
            if time.monotonic() < end and (kind != "rounds" or number == 0):
                run = arguments.out / kind / f"{number:02d}"
                once(run, lambda run=run, kind=kind, number=number: trial(run, shared, kind, number, arguments))
                if (run / "result.json").exists():  # another process may be at it
                    shutil.rmtree(run / "run", ignore_errors=True)
    results = {kind: read(arguments.out / kind) for kind in KINDS}
    print(f"{arguments.data.name}, {arguments.queries:,} queries of {USERS} users a trial, {machine()}\n")
    print(table(("searchers", "decisions", "promoted", "test NDCG@10", "gate", "later", "seconds"), rows(results)))
    for result in results["rounds"]:
        for row in result["decisions"]:
            guards = ", ".join(f"{one['name']} {-one['forgotten']:+.2%} to the base" for one in row.get("guard", []))
            change = f"test {row['test']['delta']['value']:+.4f}, {guards}; " if "test" in row else ""
            print(f"round: {row['outcome']}, {change}{row['reason']}")


def trained(arguments: argparse.Namespace) -> Path:
    """The run that every trial begins with: an adapter of queries, trained on half of the training queries."""
    from acclimate.files import read_json
    from acclimate.flows import verbs

    known, run = arguments.out / "known", arguments.out / "run"
    withhold(arguments.data, known, arguments.pairs)
    if not (run / "adapter" / "adapter_config.json").is_file():
        verbs.prepare(known, out=run)
        verbs.mine(run)
        verbs.train(run, **TRAIN)
    once(known / "found", lambda: found(run, list(read_json(known / "future.json"))))
    return run


def found(run: Path, queries: Sequence[str]) -> Mapping[str, list[str]]:
    """What the adapter in use finds for each query."""
    from acclimate.data.dataset import load_dataset
    from acclimate.retrieval.rank import rank
    from acclimate.runs.resolve import load

    corpus = load_dataset(run / "dataset").corpus
    ranked = rank(load(run), {query: query for query in queries}, corpus, SHOWN, cache=run / ".work" / "cache")
    return {query: list(documents) for query, documents in ranked.items()}


def withhold(data: Path, known: Path, pairs: int) -> None:
    """Write a BEIR folder with half of the training queries that are used; the others are still to come."""
    if (known / "future.json").exists():
        return
    corpus, queries, qrels = read_beir(data)
    names = {split: sorted(judged) for split, judged in qrels.items()}
    for some in names.values():
        random.Random(0).shuffle(some)
    used = names["train"][:pairs]
    past, future = divided(used, {name: corpus[min(qrels["train"][name])].split()[0] for name in used})
    qrels["dev"], size = qrels["train"], min(DEV_QUERIES, len(past) // 3)
    splits = {"train": past[size:], "dev": past[:size], "test": names["test"][:TEST_QUERIES]}
    asked = {"train": [*past, *future], "test": splits["test"]}
    answers = {key for split, some in asked.items() for name in some for key in qrels[split][name]}
    (known / "qrels").mkdir(parents=True, exist_ok=True)
    write_rows(known / "corpus.jsonl", {key: text for key, text in corpus.items() if key in answers})
    write_rows(known / "queries.jsonl", {name: queries[name] for some in splits.values() for name in some})
    for split, some in splits.items():
        lines = [f"{query}\t{key}\t{grade}" for query in some for key, grade in qrels[split][query].items()]
        (known / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n")
    right = {queries[name]: [key for key, grade in qrels["train"][name].items() if grade > 0] for name in future}
    (known / "future.json").write_text(json.dumps({query: keys for query, keys in right.items() if keys}))


def divided(names: Sequence[str], topics: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Queries by their topics: those of the largest ones, about half of all, and the others."""
    sizes = Counter(topics.values())
    past, count = set[str](), 0
    for topic, size in sizes.most_common():
        if count < len(names) // 2:
            past.add(topic)
            count += size
    return [name for name in names if topics[name] in past], [name for name in names if topics[name] not in past]


def write_rows(path: Path, texts: Mapping[str, str]) -> None:
    """Write id and text of each."""
    lines = (json.dumps({"_id": name, "text": text}) + "\n" for name, text in texts.items())
    path.write_text("".join(lines), encoding="utf-8")


def trial(run: Path, shared: Path, kind: str, number: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Let searchers search and mark, and refresh; `rounds` does it three times."""
    import acclimate
    from acclimate.files import read_json
    from acclimate.runs.refreshes import decisions
    from acclimate.runs.run_folder import RunFolder

    own = run / "run"
    if not own.is_dir():
        copy(shared, run / "copy")
        (run / "copy").rename(own)
    kept = outside(arguments) if kind == "rounds" else {}
    future: dict[str, list[str]] = read_json(arguments.out / "known" / "future.json")
    names = sorted(future)
    random.Random(number).shuffle(names)
    begun = time.monotonic()
    parts = ROUNDS if kind == "rounds" else 1
    size = arguments.queries // parts
    for part in range(parts):
        typed = names[part * size : (part + 1) * size]
        if not (own / f"typed-{part}").exists():
            finds = found(own, typed) if part else read_json(arguments.out / "known" / "found" / "result.json")
            searchers = "useful" if kind == "rounds" else kind
            simulate(own, {query: future[query] for query in typed}, finds, searchers, f"{number} {part}")
            (own / f"typed-{part}").touch()
        if len(decisions(RunFolder(own))) == part:
            acclimate.refresh(own, **SETTINGS, **kept)
    decided = [{**row, **row.get("measured", {})} for row in decisions(RunFolder(own))]
    return {"decisions": decided, "seconds": round(time.monotonic() - begun, 1)}


def outside(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings of a refresh that has to keep what the model knows of other data."""
    kept: dict[str, Any] = {"guard": (str(arguments.guard),)} if arguments.guard else {}
    if arguments.retain:
        _, queries, _ = read_beir(arguments.retain)
        texts = arguments.out / "known" / "retain.txt"
        texts.write_text("".join(f"{' '.join(text.split())}\n" for text in queries.values()), encoding="utf-8")
        kept["retain_data"] = str(texts)
    return kept


def copy(shared: Path, own: Path) -> None:
    """Copy the run; the base's vectors, which are never changed in place, are shared."""
    cache = Path(".work") / "cache"
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(
        shared, own, symlinks=True, ignore=lambda folder, _: [cache.name] if folder.endswith(".work") else []
    )
    if (shared / cache).is_dir():
        shutil.copytree(shared / cache, own / cache, copy_function=os.link)


def simulate(
    run: Path, future: Mapping[str, Sequence[str]], finds: Mapping[str, Sequence[str]], kind: str, seed: str
) -> None:
    """Write what the searchers of one kind see and mark."""
    from acclimate.data.dataset import load_dataset
    from acclimate.feedback.position import with_swap
    from acclimate.feedback.records import Impression, Mark
    from acclimate.feedback.store import FeedbackStore
    from acclimate.runs.resolve import load

    draw = random.Random(f"{kind} {seed}")
    space = load(run).space.digest
    impressions, marks = history(sorted(load_dataset(run / "dataset").corpus), draw)
    for query, right in future.items():
        for user in draw.sample(range(USERS), PER_QUERY):
            shown, pair = with_swap(list(finds[query]), SWAPS, draw)
            number = uuid.UUID(int=draw.getrandbits(128)).hex
            impressions.append(Impression(number, time.time(), query, tuple(shown), "", space, pair=pair))
            clicked = SEARCHERS[kind](shown, set(right), draw)
            marks += [Mark(key, mark, None, number, f"user {user}") for key, mark in clicked]
    with closing(FeedbackStore(run / "feedback.sqlite", create=True)) as store:
        store.add_impressions(impressions)
        assert not store.add_marks(marks).refused


def history(documents: Sequence[str], draw: random.Random) -> tuple[list[Impression], list[Mark]]:
    """What is known of places from before: searches in random order, of a version with another space."""
    from acclimate.feedback.position import with_swap
    from acclimate.feedback.records import Impression, Mark

    impressions, marks = [], []
    for search in range(HISTORY):
        shown, pair = with_swap(draw.sample(documents, SHOWN), 1.0, draw)
        number = uuid.UUID(int=draw.getrandbits(128)).hex
        impressions.append(Impression(number, 0.0, f"earlier {search}", tuple(shown), "", "earlier", pair=pair))
        clicked = SEARCHERS["places"](shown, set(), draw)
        marks += [Mark(key, mark, None, number, f"earlier {search % EARLIER_USERS}") for key, mark in clicked]
    return impressions, marks


Marked = list[tuple[str, str]]


def clicks(right_share: float, wrong_share: float) -> Callable[[list[str], set[str], random.Random], Marked]:
    """Make searchers who click on right and on wrong documents that they look at with these probabilities."""

    def search(shown: list[str], right: set[str], draw: random.Random) -> Marked:
        found = []
        for rank, key in enumerate(shown, start=1):
            if draw.random() < 1 / rank and draw.random() < (right_share if key in right else wrong_share):
                found.append((key, "click"))
        return found

    return search


def judges_by_chance(shown: list[str], right: set[str], draw: random.Random) -> Marked:
    """Judge one document, whichever it is."""
    del right
    return [(draw.choice(shown), "relevant")]


SEARCHERS = {
    "useful": clicks(0.9, 0.05),
    "places": clicks(0.5, 0.5),
    "random": judges_by_chance,
    "adversarial": clicks(0.05, 0.9),
}


def read(folder: Path) -> list[dict[str, Any]]:
    """The results of the trials that are finished."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]


def rows(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """A row for each kind of searchers."""
    lines = []
    for kind, trials in results.items():
        every = [row for trial in trials for row in trial["decisions"]]
        if not every:
            continue
        promoted = sum(row["outcome"] == "promoted" for row in every)
        seconds = statistics.median(trial["seconds"] / len(trial["decisions"]) for trial in trials)
        changes = [spread([row[part]["delta"]["value"] for row in every if part in row]) for part in PARTS]
        lines.append([kind, str(len(every)), f"{promoted}", *changes, f"{seconds:.0f}"])
    return lines


PARTS = ("test", "gate", "later")


def spread(values: Sequence[float]) -> str:
    """The mean of some trials' differences, and its 95 % interval (Student's t)."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:+.4f}"
    half = float(students.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


if __name__ == "__main__":
    main()
