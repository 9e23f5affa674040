"""What a model has forgotten: base and adapted model on the guard data, outside of what was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acclimate.configs import EvaluateConfig
from acclimate.data.dataset import Dataset
from acclimate.evaluation.compare import MAIN_MEASURE, PairScores, RankingScores, deltas, judged_queries
from acclimate.evaluation.measures import relative_loss
from acclimate.evaluation.reports import Counts, GuardRow
from acclimate.formats.trained_on import TrainedOn
from acclimate.progress import say
from acclimate.retrieval.own_documents import own_documents
from acclimate.runs.guards import guard_data
from acclimate.runs.trained_on import without_seen

Scores = RankingScores | PairScores


def unseen_guards(
    sources: Sequence[str], seen: TrainedOn, *, seed: int, limit: int | None
) -> tuple[list[Dataset], list[int]]:
    """Read guard data without test queries that were trained on, and say how many these are of each.

    Args:
        sources: see `guard_data`, and so are the other arguments.
        seen: what was trained on.
        seed: of the splits.
        limit: at most so many queries of each.
    """
    guards = guard_data(sources, seed=seed, limit=limit) if sources else []
    rest = [without_seen(data, seen, f"guard {source}") for data, source in zip(guards, sources, strict=True)]
    return [data for data, _ in rest], [count for _, count in rest]


def guard_rows(
    guards: Sequence[Dataset],
    base: Sequence[Scores],
    adapted: Sequence[Scores],
    config: EvaluateConfig,
    seed: int,
    advice: str,
) -> list[GuardRow]:
    """Compare both models on each guard; a loss beyond `guard_bound` is said.

    Args:
        guards: those of `config.guard`, as `unseen_guards` gives them.
        base: scores of the model before the training, on each.
        adapted: those after it.
        config: sources, bound, and how sure a difference is.
        seed: of the intervals.
        advice: what forgets less.
    """
    rows: list[GuardRow] = []
    for source, data, before, after in zip(config.guard, guards, base, adapted, strict=True):
        name, main = Path(source).name or source, MAIN_MEASURE[data.kind]
        loss = relative_loss(before.measures, after.measures, main)
        warn = loss > config.guard_bound
        if warn:
            say(f"guard {name}: the adapted model's {main} is {100 * loss:.1f} % below the base's; {advice}")
        rows.append(
            {
                "name": name,
                "kind": data.kind,
                **counts(data),
                "base": before.measures,
                "adapted": after.measures,
                "delta": deltas(before, after, config, seed),
                "relative_loss": loss,
                "warn": warn,
            }
        )
    return rows


def counts(data: Dataset) -> Counts:
    """Over how many queries and documents, or pairs, the measures of a test split are taken."""
    if data.kind == "pairs":
        return {"pairs": len(data.pairs["test"])}
    queries, qrels = judged_queries(data)
    judged, given = len(queries), len(data.qrels["test"])
    found: Counts = {"queries": judged, "queries_without_relevant": given - judged, "documents": len(data.corpus)}
    if own := own_documents(queries, data.corpus, qrels):
        found["own_documents"] = len(own)
    return found
