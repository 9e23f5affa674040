"""Learning from feedback with simulated searchers, whose truth is known: what is promoted, and what is refused.

Half of the training queries are withheld as the future: searchers type them, and see what the adapter in use finds
among all documents. They look at rank r with the probability 1 / r, and click on what they look at:

- useful: on a right document in 90 % of the cases, on another one in 5 %;
- places: on any document in half of the cases: clicks say nothing but places (A/A: feedback without news);
- random: they judge one of the documents that are shown, drawn by chance, to be relevant;
- adversarial: they click on a wrong document in 90 % of the cases, on a right one in 5 %.

Each trial is a refresh of the same run by other searchers; `rounds` are three useful ones in a row, with a guard.

    python benchmarks/feedback.py DATA --out FOLDER [--guard DATA] [--trials 20] [--kinds useful,random] [--minutes 30]

DATA is a BEIR folder. A trial that is finished is not run again, one that was interrupted goes on; after `--minutes` no
other one is begun. The table is of what is there.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from common import machine, once, read_beir, table

KINDS = ("useful", "places", "random", "adversarial", "rounds")
SHOWN = 10
USERS = 60
SWAPS = 0.2
SETTINGS: dict[str, Any] = {"refresh_steps": 20, "gate_margin": 0.02, "sign_flips": 1000}
TRAIN = {"sides": "query", "batch_size": 64, "epochs": 0.5, "dev_documents": 500, "rank": 8}
ROUNDS = 3


def main() -> None:
    """Run what is missing within the time, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--guard", type=Path)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--queries", type=int, default=800, help="typed in a trial, or a round")
    parser.add_argument("--minutes", type=float, default=1e9)
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    shared = trained(arguments)
    for number in range(arguments.trials):
        for kind in arguments.kinds.split(","):
            if time.monotonic() < end and (kind != "rounds" or number == 0):
                run = arguments.out / kind / f"{number:02d}"
                once(run, lambda run=run, kind=kind, number=number: trial(run, shared, kind, number, arguments))
    results = {kind: read(arguments.out / kind) for kind in KINDS}
    print(f"{arguments.data.name}, {arguments.queries:,} queries of {USERS} users a trial, {machine()}\n")
    print(table(("searchers", "trials", "promoted", "test NDCG@10", "gate", "later", "seconds"), rows(results)))
    for result in results["rounds"]:
        for row in result["decisions"]:
            guards = ", ".join(f"{one['name']} {-one['forgotten']:+.2%} to the base" for one in row["guard"])
            print(f"round: {row['outcome']}, test {row['test']['delta']['value']:+.4f}, {guards}; {row['reason']}")


def trained(arguments: argparse.Namespace) -> Path:
    """The run that every trial begins with: an adapter of queries, trained on half of the training queries."""
    from acclimate.flows import verbs

    known, run = arguments.out / "known", arguments.out / "run"
    withhold(arguments.data, known)
    if not (run / "adapter" / "adapter_config.json").is_file():
        verbs.prepare(known, out=run, dev_fraction=0.15)
        verbs.mine(run)
        verbs.train(run, **TRAIN)
    return run


def withhold(data: Path, known: Path) -> None:
    """Write a BEIR folder with half of the training queries; the others are still to come."""
    if (known / "future.json").exists():
        return
    corpus, queries, qrels = read_beir(data)
    names = sorted(qrels["train"])
    random.Random(0).shuffle(names)
    future = names[: len(names) // 2]
    (known / "qrels").mkdir(parents=True, exist_ok=True)
    shutil.copy(data / "corpus.jsonl", known)
    kept = {"train": {name: qrels["train"][name] for name in names[len(future) :]}, "test": qrels["test"]}
    asked = [name for split in kept.values() for name in split]
    (known / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": name, "text": queries[name]}) + "\n" for name in asked), encoding="utf-8"
    )
    for split, judged in kept.items():
        lines = [f"{query}\t{key}\t{grade}" for query, grades in judged.items() for key, grade in grades.items()]
        (known / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n")
    right = {queries[name]: [key for key, grade in qrels["train"][name].items() if grade > 0] for name in future}
    (known / "future.json").write_text(json.dumps({query: keys for query, keys in right.items() if keys}))
    assert corpus


def trial(run: Path, shared: Path, kind: str, number: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Let searchers search and mark, and refresh; `rounds` does it three times."""
    import acclimate
    from acclimate.errors import DataError
    from acclimate.runs.refreshes import decisions
    from acclimate.runs.run_folder import RunFolder

    own = run / "run"
    if not own.is_dir():
        shutil.copytree(shared, run / "copy", symlinks=True)
        (run / "copy").rename(own)
    guard = {"guard": (str(arguments.guard),)} if kind == "rounds" and arguments.guard else {}
    future: dict[str, list[str]] = json.loads((arguments.out / "known" / "future.json").read_text())
    names = sorted(future)
    random.Random(number).shuffle(names)
    begun, undecided = time.monotonic(), list[dict[str, Any]]()
    for part in range(ROUNDS if kind == "rounds" else 1):
        typed = names[part * arguments.queries : (part + 1) * arguments.queries]
        if not (own / f"typed-{part}").exists():
            simulate(own, {query: future[query] for query in typed}, "useful" if kind == "rounds" else kind, number)
            (own / f"typed-{part}").touch()
        try:
            if len(decisions(RunFolder(own))) == part:
                acclimate.refresh(own, **SETTINGS, **guard)
        except DataError as error:
            undecided.append({"outcome": "kept aside", "reason": str(error)})
    found = [{**row, **row.get("measured", {})} for row in decisions(RunFolder(own))]
    return {"decisions": found + undecided, "seconds": round(time.monotonic() - begun, 1)}


def simulate(run: Path, future: Mapping[str, Sequence[str]], kind: str, seed: int) -> None:
    """Write what the searchers of one kind see and mark."""
    from acclimate.data.dataset import load_dataset
    from acclimate.feedback.position import with_swap
    from acclimate.feedback.records import Impression, Mark
    from acclimate.feedback.store import FeedbackStore
    from acclimate.retrieval.rank import rank
    from acclimate.runs.resolve import load

    draw, model = random.Random(f"{kind} {seed}"), load(run)
    corpus = load_dataset(run / "dataset").corpus
    found = rank(model, {query: query for query in future}, corpus, SHOWN, cache=run / ".work" / "cache")
    impressions, marks = [], []
    for query, right in future.items():
        shown, pair = with_swap(list(found[query]), SWAPS, draw)
        number = uuid.UUID(int=draw.getrandbits(128)).hex
        space = model.space.digest
        impressions.append(Impression(number, time.time(), query, tuple(shown), "", space, pair=pair))
        user = f"user {draw.randrange(USERS)}"
        marks += [Mark(key, mark, None, number, user) for key, mark in SEARCHERS[kind](shown, set(right), draw)]
    with closing(FeedbackStore(run / "feedback.sqlite", create=True)) as store:
        store.add_impressions(impressions)
        assert not store.add_marks(marks).refused


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
    """The mean of some differences, and the least and the largest."""
    return f"{statistics.fmean(values):+.4f} ({min(values):+.4f} to {max(values):+.4f})" if values else "-"


if __name__ == "__main__":
    main()
