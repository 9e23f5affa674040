"""What qualifies the verdict of a run: how it was tested, and what could flatter it or hold it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acclimate.counting import are, counted
from acclimate.evaluation.reports import FoldRow
from acclimate.report.folder import RunParts
from acclimate.report.words import count, folds_note, metric_name, percent, primary_metric, tested

RESTATED = ("--strict-near", "--strict-documents", "training rows were removed")
"""Warnings of the data that hold these words are said here, with their numbers."""
ONE_TRAINING = (
    "One training with one seed: the interval holds the chance of which queries are tested, not that of the training."
)


@dataclass(frozen=True, slots=True)
class Qualifier:
    """One sentence beside the verdict."""

    text: str
    weakens: bool = False
    """Whether it weakens what the verdict says; else it says how to read it."""


def qualifiers(run: RunParts) -> list[Qualifier]:
    """Collect them: what weakens the verdict first; none where nothing was measured."""
    if not run.test.get("base"):
        return []
    evaluation: Mapping[str, Any] = run.evaluation or run.summary or {}
    folds = evaluation.get("folds") or ()
    strict = (run.summary or {}).get("config", {}).get("prepare", {}).get("strict_near")
    dataset = run.dataset or (run.summary or {}).get("dataset") or {}
    found = [
        *_of_training(evaluation, run.test),
        *(_of_folds([] if strict else folds, run.kind) if folds else _of_data(dataset, run.kind)),
        *_of_guards(evaluation),
        *map(Qualifier, _other_warnings(dataset)),
    ]
    if note := tested(run.test):
        found.append(Qualifier(note))
    found.append(Qualifier(folds_note(len(folds)) if folds else ONE_TRAINING))
    return sorted(found, key=lambda one: not one.weakens)


def _of_training(evaluation: Mapping[str, Any], test: Mapping[str, Any]) -> list[Qualifier]:
    """What the model, or what it was made from, had seen of the test."""
    noun, found = "pairs" if "pairs" in test else "queries", []
    if left_out := test.get("trained_on"):
        found.append(
            Qualifier(
                f"{counted(left_out, f'test {noun}')} {are(left_out)} left out: the model, or one that it was made"
                f" from, was trained on {'it' if left_out == 1 else 'them'}.",
                True,
            )
        )
    if evaluation.get("training_known") is False:
        found.append(
            Qualifier(
                "What one of the models behind this adapter was trained on is not known: the test may hold some of it.",
                True,
            )
        )
    return found


def _of_data(dataset: Mapping[str, Any], kind: str) -> list[Qualifier]:
    """Dev and test texts that are nearly, or in part, in the training."""
    counts = dataset.get("counts", {})
    asked, judged = ("pairs", "sentences") if kind == "pairs" else ("queries", "documents")
    held = sum(counts.get(split, {}).get(asked, 0) for split in ("dev", "test"))
    found = []
    if near := counts.get("near_duplicates"):
        share = f" ({percent(near / held)})" if held else ""
        kept = "their training rows were removed" if _removed(dataset) else "--strict-near removes their training rows"
        found.append(
            Qualifier(
                f"{count(near)}{share} of the dev and test {asked} are nearly a training text, which may flatter the"
                f" adapted model; {kept}.",
                not _removed(dataset),
            )
        )
    where = "in other pairs" if kind == "pairs" else "as answers to other queries"
    if shared := counts.get("shared_documents"):
        found.append(
            Qualifier(
                f"{counted(shared, judged)} of dev and test {are(shared)} in train too, {where}; --strict-documents"
                " removes these training rows."
            )
        )
    return found


def _of_folds(folds: Sequence[FoldRow], kind: str) -> list[Qualifier]:
    """As `_of_data`, of the folds: the dataset that the kept adapter is trained on has no test."""
    near, asked = sum(fold["near_duplicates"] for fold in folds), "pairs" if kind == "pairs" else "queries"
    if not near:
        return []
    return [
        Qualifier(
            f"{count(near)} dev and test {asked} of the folds are nearly a text that their adapter was trained on,"
            " which may flatter it; --strict-near removes these training rows.",
            True,
        )
    ]


def _removed(dataset: Mapping[str, Any]) -> bool:
    return any("training rows were removed" in str(warning) for warning in dataset.get("warnings", ()))


def _of_guards(evaluation: Mapping[str, Any]) -> list[Qualifier]:
    found = []
    for guard in evaluation.get("guard", ()):
        if guard.get("warn") and isinstance(guard.get("relative_loss"), float):
            lost, metric = percent(guard["relative_loss"]), metric_name(str(primary_metric(guard)))
            found.append(Qualifier(f"Outside the domain it forgets: {lost} of {metric} on {guard.get('name')}.", True))
    return found


def _other_warnings(dataset: Mapping[str, Any]) -> list[str]:
    said = RESTATED if "near_duplicates" in dataset.get("counts", {}) else ()
    found = [str(warning) for warning in dataset.get("warnings", ())]
    return [text if text.endswith(".") else f"{text}." for text in found if not any(words in text for words in said)]
