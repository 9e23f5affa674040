"""`refresh`, first part: from a run's feedback to a dataset that a candidate is trained on and judged by."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from acclimate.configs import RunConfig, effective
from acclimate.core.same_text import same_text_key, text_id
from acclimate.data.dataset import Dataset, held_out, write_dataset
from acclimate.errors import DataError
from acclimate.feedback.evidence import Evidence, divide
from acclimate.feedback.labels import Label, labels_of
from acclimate.feedback.opinions import OPINIONS_FILE, opinions, write_opinions
from acclimate.feedback.position import Examination, examination
from acclimate.feedback.reports import LearnedFrom
from acclimate.feedback.store import FeedbackStore
from acclimate.files import hash_folder, write_json, write_jsonl
from acclimate.models.encoder import Encoder
from acclimate.ownership import marker
from acclimate.progress import say
from acclimate.retrieval.index.of_run import has_index, index_place, opened_index
from acclimate.retrieval.index.pictures import is_picture
from acclimate.runs.opening import open_retrieval_dataset
from acclimate.runs.resolve import load_pair
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.tasks import Task
from acclimate.runs.trained_on import trained_on
from acclimate.training.schedule import auto_learning_rate
from acclimate.types import Corpus, Example, Qrels, Queries

TAUGHT_FILE = "taught.jsonl"
"""The rows of feedback, with who says so."""
PARTS_FILE = "parts.json"
"""{"gate", "later", "examined"}: ids of the dev queries that judge, and of those of the later feedback, which are in
the test split beside the run's own; how often places are looked at (`Examination`), or null."""
DAY_S = 86_400
_CLICKS_JUDGE_NOTHING = "; clicks judge nothing, as too few are known on neighbours in random order (serve --swaps)"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which marks a refresh knows of."""

    until: int
    """The number of the last one."""
    decided_until: int
    """The number of the last one that was a part of an earlier decision."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of feedback, by texts."""

    label: Label
    positive: str
    negatives: tuple[str, ...]


def refresh_data(task: Task, refresh: RunFolder, adapter: Path, snapshot: Snapshot, config: RunConfig) -> LearnedFrom:
    """Make `refresh/dataset`: earlier feedback and the run's own rows to train on, a part of dev to choose by, and what
    a candidate is judged by: another part of dev, and later feedback.

    Args:
        task: the run's only one.
        refresh: gets the dataset.
        adapter: the version in use.
        snapshot: which marks count.
        config: the whole run; its `refresh` section counts.

    Returns:
        what its `report.json` holds.

    Raises:
        StorageError: there is no feedback, or no dataset.
        DataError: too little to learn from or to judge by; no dev split.
    """
    settings = effective(config, "refresh") | {"until": snapshot.until, "decided_until": snapshot.decided_until}
    inputs = {"dataset": hash_folder(task.dataset), "adapter": hash_folder(adapter)}
    make = partial(_made, task, refresh, adapter, snapshot, config)
    return step("refresh: data", refresh.dataset, settings, inputs, make, seconds="data_s", reads=[task.dataset])


def _made(task: Task, refresh: RunFolder, adapter: Path, snapshot: Snapshot, config: RunConfig) -> Work[LearnedFrom]:
    data = open_retrieval_dataset(task.dataset)
    base, current = load_pair(adapter, base=config.model, **config.loading)
    corpus, new_documents = _documents(data, task)
    store = FeedbackStore(task.folder.feedback, read_only=True)
    try:
        space = current.space.digest
        examined = examination(store.pair_clicks(snapshot.until))
        labels, marks = labels_of(store.marks(snapshot.until), space=space, examined=examined)
        there = [one for one in labels if one.document in corpus]
        evidence = _divided(there, data, adapter, snapshot, examined, config)
        later_queries, later = _later(evidence)
        names = {same_text_key(text): name for name, text in later_queries.items()}
        found = store.marks(snapshot.until)
        said = opinions(found, store.impressions_of, names, space=space, clicks=examined is not None)
    finally:
        store.close()
    rows, not_used = _rows(evidence, corpus, data)
    rows, not_used["labels of users who mark more than the steps can take"] = _takable(rows, config)
    not_used["documents that are gone"] = sum(one.document not in corpus for one in labels)
    not_used["later queries of users who mark more than others together"] = evidence.crowded_out
    gate = _gate(data, config)
    _check_enough(rows, later_queries, evidence, examined, config)
    number = int(refresh.path.name)
    replay = _replay(data, config, number)
    dataset = _dataset(data, corpus, rows, replay, (later_queries, later))
    report = _report(rows, replay, evidence, gate, config, base)
    report["marks"], report["not_used"] = marks, {why: count for why, count in not_used.items() if count}
    report["clicks"] = _said_of_clicks(examined, marks)
    report["new_documents"], report["negatives_age_days"] = new_documents, _age_days(task.negatives)

    def write(folder: Path) -> LearnedFrom:
        write_dataset(folder, dataset, [])
        known = None if examined is None else dataclasses.asdict(examined)
        write_json(folder / PARTS_FILE, {"gate": sorted(gate), "later": sorted(later), "examined": known})
        write_opinions(folder / OPINIONS_FILE, said)
        taught = (
            {"anchor": row.label.query, "positive": row.positive, "users": sorted(row.label.users)}
            | {"weight": row.label.weight, "explicit": row.label.explicit}
            for row in rows
        )
        write_jsonl(folder / TAUGHT_FILE, taught)
        _tell(report)
        return report

    return Work(write)


def _documents(data: Dataset, task: Task) -> tuple[Corpus, int]:
    """The run's corpus and the texts that its index holds, by id, and how many the corpus lacks; the index is newer."""
    if not has_index(task):
        return data.corpus, 0
    with opened_index(index_place(task)) as index:
        indexed = {one.document.id: one.document.text for one in index.iterate() if not is_picture(one.document)}
    return data.corpus | indexed, len(indexed.keys() - data.corpus.keys())


def _divided(
    labels: Sequence[Label],
    data: Dataset,
    adapter: Path,
    snapshot: Snapshot,
    examined: Examination | None,
    config: RunConfig,
) -> Evidence:
    seen = trained_on([str(adapter)])
    own = {same_text_key(data.queries[query]) for query in data.qrels.get("train", {})}
    held = held_out(data)
    settings = config.refresh
    return divide(
        [label for label in labels if not held.excludes(label.query, "anchor")],
        later_fraction=settings.later_fraction,
        decided_until=snapshot.decided_until,
        least_users=settings.least_users,
        seen=lambda query: same_text_key(query) in own or seen.has_text(query),
        judges=lambda label: label.explicit or examined is not None,
        seed=config.seed,
    )


def _rows(evidence: Evidence, corpus: Corpus, data: Dataset) -> tuple[list[_Row], Counter[str]]:
    """Rows to learn from; and why the other labels are not."""
    held, not_used = held_out(data), Counter[str]()
    wrong: dict[str, list[str]] = {}
    for label in evidence.earlier:
        if not label.relevant and not held.excludes(corpus[label.document], "negative"):
            wrong.setdefault(label.key, []).append(corpus[label.document])
    rows = []
    for label in evidence.earlier:
        if not label.relevant:
            continue
        positive = corpus[label.document]
        if held.excludes_row(label.query, positive):
            not_used["texts of dev or test"] += 1
            continue
        rows.append(_Row(label, positive, tuple(text for text in wrong.get(label.key, ()) if text != positive)))
    right = {row.label.key for row in rows}
    not_used["queries without a relevant document"] = len(wrong.keys() - right)
    return rows, not_used


def _takable(rows: Sequence[_Row], config: RunConfig) -> tuple[list[_Row], int]:
    """Those rows that the steps can take of each user, drawn by chance; and how many are left out."""
    most = max(1, int(config.refresh.user_share * config.train.batch_size)) * config.refresh.refresh_steps
    of_user: Counter[str] = Counter()
    kept = set()
    for place in random.Random(config.seed).sample(range(len(rows)), len(rows)):
        users = rows[place].label.users
        if all(of_user[user] < most for user in users):
            of_user.update(users)
            kept.add(place)
    return [row for place, row in enumerate(rows) if place in kept], len(rows) - len(kept)


def _later(evidence: Evidence) -> tuple[Queries, Qrels]:
    """The later queries and their judgements."""
    queries: Queries = {}
    qrels: Qrels = {}
    for label in evidence.later:
        name = f"feedback-{text_id(label.query):016x}"
        queries.setdefault(name, label.query)
        qrels.setdefault(name, {})[label.document] = int(label.relevant)
    return queries, qrels


def _gate(data: Dataset, config: RunConfig) -> set[str]:
    """The dev queries of the gate: by their texts, so that they are the same in every refresh.

    Raises:
        DataError: there is no dev split that both parts could come of.
    """
    dev = data.qrels.get("dev", {})
    bound = config.refresh.gate_fraction * 2**64
    gate = {query for query in dev if text_id(data.queries[query] + " gate") < bound}
    if not gate or len(gate) == len(dev):
        raise DataError(
            f"the dev split has {len(dev)} queries, and a part of it has to judge, another one to choose the best step",
            fix="Prepare the run with a larger --dev-fraction.",
        )
    return gate


def _check_enough(
    rows: Sequence[_Row], later: Queries, evidence: Evidence, examined: Examination | None, config: RunConfig
) -> None:
    needed = config.refresh
    clicks = "" if examined is not None or all(row.label.explicit for row in rows) else _CLICKS_JUDGE_NOTHING
    if len(later) < needed.least_later or evidence.later_users < needed.least_users:
        raise DataError(
            f"too little feedback to judge by: {len(later)} later queries of {evidence.later_users} users, which "
            f"no training has seen and no decision has used{clicks}",
            possible=f"{needed.least_later} queries of {needed.least_users} users, or more",
            fix="Wait for more marks, with the user's name in each; or lower --least-later.",
        )
    if not rows:
        raise DataError("no mark can be learned from", fix="See: acclimate feedback RUN --info.")


def _replay(data: Dataset, config: RunConfig, number: int) -> list[Example]:
    """The run's own rows that are learned again: as many as the steps can take, drawn for each refresh anew."""
    rows = [row for row in data.examples if row.label is None]
    most = config.refresh.refresh_steps * config.train.batch_size
    return random.Random(f"{config.seed} {number}").sample(rows, min(most, len(rows)))


def _dataset(
    data: Dataset,
    corpus: Corpus,
    rows: Sequence[_Row],
    replay: Sequence[Example],
    later: tuple[Queries, Qrels],
) -> Dataset:
    """What is trained on, in the form of a run's dataset; its dev and test splits hold out all that judges."""
    queries, taught = dict(data.queries), dict(data.qrels.get("train", {}))
    for row in rows:
        name = f"feedback-{text_id(row.label.query):016x}"
        queries[name] = row.label.query
        taught[name] = {**taught.get(name, {}), row.label.document: 1}
    dataset = Dataset(
        "retrieval",
        corpus,
        queries | later[0],
        {
            "train": taught,
            "dev": data.qrels["dev"],
            "test": {**data.qrels.get("test", {}), **later[1]},
        },
    )
    held = held_out(dataset)
    examples = [*(Example(row.label.query, row.positive, row.negatives) for row in rows), *replay]
    for example in examples:
        if not held.excludes_row(example.anchor, example.positive):
            kept = tuple(text for text in example.negatives if not held.excludes(text, "negative"))
            dataset.examples.append(dataclasses.replace(example, negatives=kept, scores=None))
    return dataset


def _report(
    rows: Sequence[_Row],
    replay: Sequence[Example],
    evidence: Evidence,
    gate: set[str],
    config: RunConfig,
    base: Encoder,
) -> LearnedFrom:
    explicit = {label.key for label in evidence.later if label.explicit and label.relevant}
    later = {label.key for label in evidence.later}
    peak = config.train.learning_rate or auto_learning_rate(*base.transformer_size, full=False)
    return {
        "marks": {},
        "not_used": {},
        "rows": len(rows),
        "judged_rows": sum(row.label.explicit for row in rows),
        "users": len({user for row in rows for user in row.label.users}),
        "replay": len(replay),
        "later_queries": len(later),
        "later_users": evidence.later_users,
        "later_clicked": len(later - explicit),
        "gate_queries": len(gate),
        "clicks": "",
        "new_documents": 0,
        "negatives_age_days": None,
        "learning_rate": peak * config.refresh.refresh_rate,
    }


def _said_of_clicks(examined: Examination | None, marks: Mapping[str, int]) -> str:
    if "clicks" not in marks:
        return "none"
    if examined is not None:
        severity = f"{examined.severity:.2f} ± {examined.error:.2f}"
        return (
            f"weighed by their places: rank r is looked at r^-{severity} as often as rank 1 ({examined.clicks} clicks)"
        )
    return "advisory, they judge nothing: how much they owe to their places is not known (serve with --swaps)"


def _age_days(negatives: Path) -> float | None:
    made = (marker(negatives) or {}).get("time")
    if made is None:
        return None
    return round((datetime.now(UTC) - datetime.fromisoformat(made)).total_seconds() / DAY_S, 1)


def _tell(report: LearnedFrom) -> None:
    say(
        f"refresh: learns from {report['rows']:,} labels of {report['users']:,} users ({report['judged_rows']:,} "
        f"judged, the others clicked on), and is judged by {report['later_queries']:,} later queries of "
        f"{report['later_users']:,} users"
    )
    for why, count in report["not_used"].items():
        say(f"  not used: {count:,} ({why})")
    say(f"  clicks: {report['clicks']}")
    age = report["negatives_age_days"]
    own = "" if age is None else f"; the run's own are {age:g} days old"
    say(f"  negatives are mined anew with the adapter in use{own}")
