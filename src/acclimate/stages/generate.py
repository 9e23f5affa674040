"""`generate`: an adapter from a description, a few pairs or sample texts, without training; checked where that can be.

Candidates are the base, the multi-task adapter that a hypernetwork started from, what it generates, and the map that
follows from the pairs in closed form. With pairs at hand each of these is measured on the pairs it has not seen, and
the best is kept where it is above the base by more than chance.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig, used
from acclimate.configs.hypernetwork import RIVALS
from acclimate.counting import counted
from acclimate.data.conditions import read_description, read_few_pairs, read_sample, used_pairs
from acclimate.data.facts import evenly, languages
from acclimate.data.texts import read_texts
from acclimate.errors import ModelError, UsageError
from acclimate.evaluation.leaving_out import ranker
from acclimate.evaluation.own_check import BASE, FEWEST_PAIRS, OwnCheck, Ranker, own_check
from acclimate.files import hash_file, hash_folder
from acclimate.formats.trained_on import TrainedOn, read_trained_on, write_trained_on
from acclimate.models.adapter import Adapter
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.candidates import GENERATED, Candidates
from acclimate.models.hypernetwork.condition import Condition, encode_condition
from acclimate.models.hypernetwork.generate import NetworkHypernetwork, bound
from acclimate.models.hypernetwork.known import FAR
from acclimate.models.hypernetwork.layers import Weights
from acclimate.models.hypernetwork.packaged import find_hypernetwork
from acclimate.models.hypernetwork.saving import TrainedNetwork, load_network
from acclimate.models.query_map import QueryMap
from acclimate.models.query_map_saving import save_query_map
from acclimate.progress import say
from acclimate.retrieval.top_k import Vectors
from acclimate.runs.resolve import find_base
from acclimate.runs.step import Work, step
from acclimate.types import Sides

MOST_PAIRS = 32
"""A hypernetwork has never seen more."""
MOST_DISTRACTORS: dict[Sides, int] = {"query": 2000, "both": 500}
"""Texts of the corpus that are encoded: by the base alone, or by five adapters, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the adapter is for, as it was typed.

    Raises:
        UsageError: nothing is given.
    """

    describe: str | None = None
    pairs: Path | None = None
    sample: Path | None = None
    corpus: Path | None = None
    """Texts among which the pairs' documents have to be found."""

    def __post_init__(self) -> None:
        if self.describe is None and self.pairs is None and self.sample is None:
            raise UsageError(
                "nothing says what the adapter is for",
                possible="--describe TEXT, --pairs FILE, --sample FILE, or several of them",
            )
        if self.corpus is not None and self.pairs is None:
            raise UsageError("--corpus without --pairs, which would be looked for in it", fix="Leave it out.")

    def read(self, config: RunConfig) -> Condition:
        """Read the files."""
        pairs = [] if self.pairs is None else used_pairs(read_few_pairs(self.pairs, config.prepare), MOST_PAIRS)
        return Condition(
            description=None if self.describe is None else read_description(self.describe),
            pairs=tuple(pairs),
            texts=() if self.sample is None else tuple(read_sample(self.sample)),
        )


def generate(hypernetwork: str, asked: Asked, out: Path, config: RunConfig) -> dict[str, Any]:
    """Write an adapter, or with a hypernetwork over query vectors their map.

    Args:
        hypernetwork: a folder of `hypernetwork-train`, or "default".
        asked: what it is for.
        out: the new folder.
        config: where the base is, device, dtype, `seed`, and columns of the pairs.

    Returns:
        what report.json holds: "kept" (which candidate), "check" (None without pairs to check by), "distance" of the
        condition from the training tasks by part, "generation_s".

    Raises:
        UsageError: an empty description; or the base is best on the pairs, so that there is nothing to write.
        DataError: a file that cannot be used.
        ModelError: no hypernetwork, or one of another base.
    """
    folder = find_hypernetwork(hypernetwork)
    condition = asked.read(config)
    trained = _that_generates(folder)
    source = find_base(folder, trained.base_id, trained.base_sha256, config.model, trained.use.pooling)
    files = {name: path for name in ("pairs", "sample", "corpus") if (path := getattr(asked, name)) is not None}
    settings = {**used(config, "generate"), "describe": asked.describe}
    inputs = {"hypernetwork": hash_folder(folder), **{name: hash_file(path) for name, path in files.items()}}

    def make() -> Work[dict[str, Any]]:
        encoder = Encoder.open(source, trained.use, **config.machine)
        candidates = _Asked(NetworkHypernetwork(trained, encoder), condition)
        _warn(candidates)
        check = _checked(candidates, asked.corpus, config.seed)
        kept = GENERATED if check is None else check["best"]
        if kept == BASE:
            raise UsageError(
                f"on the {len(condition.pairs)} pairs nothing is better than the base by more than chance: nothing is "
                "written",
                fix="Use the base; give more pairs; or train, with some hundred: acclimate adapt PAIRS --out RUN",
            )
        weights = candidates.of.weights(kept, candidates.vectors)
        assert weights is not None  # a closed form is kept only where there are pairs
        made = bound(weights, encoder, trained.sides)
        report = {
            "kept": kept,
            "check": check,
            "distance": {part: round(value, 2) for part, value in candidates.distances.items()},
            "generation_s": candidates.seconds,
            "kind": "map" if isinstance(made, QueryMap) else "adapter",
            "base": trained.base,
            "hypernetwork": hypernetwork if hypernetwork == "default" else folder.name,
        }
        told = read_trained_on(folder) | TrainedOn.of(
            {*condition.texts, *(text for pair in condition.pairs for text in pair)}, condition.pairs
        )
        return Work(lambda fresh: _write(fresh, made, encoder, report, told))

    return step("generate", out, settings, inputs, make, seconds="generate_s", reads=[folder, *files.values()])


def _that_generates(folder: Path) -> TrainedNetwork:
    trained = load_network(folder)
    if (kind := trained.network.architecture.generator) in RIVALS:
        raise ModelError(
            f"{folder} is one adapter for all tasks ({kind}), which generates nothing",
            possible="a hypernetwork of another generator; hypernetwork-evaluate compares it with this one",
        )
    return trained


class _Asked:
    """A user's condition, and the adapters to choose among, from all of it or from a part."""

    def __init__(self, hypernetwork: NetworkHypernetwork, condition: Condition) -> None:
        self.condition, self.of = condition, Candidates(hypernetwork.trained)
        self.trained, self.encoder = hypernetwork.trained, hypernetwork.encoder
        self.vectors = encode_condition(self.encoder, condition)
        started = time.perf_counter()
        self.of.weights(GENERATED, self.vectors)
        self.seconds = round(time.perf_counter() - started, 5)
        reads = self.trained.network.condition.described
        self.distances = self.trained.known.distances(self.vectors, reads)

    def rankers(self, corpus: list[str]) -> dict[str, Ranker]:
        """How each candidate ranks the pairs' documents and those of a corpus."""
        documents = [*(document for _, document in self.condition.pairs), *corpus]
        document_XD = self.encoder.encode(documents, "document")
        return {name: self._ranker(name, documents, document_XD) for name in (BASE, *self.of.names)}

    def _ranker(self, name: str, documents: list[str], document_XD: Vectors) -> Ranker:
        """How a candidate ranks, made without the pair that it ranks for."""
        pairs, query_PD = self.condition.pairs, self.vectors.query_PD
        assert query_PD is not None
        if name == BASE:
            return lambda number: (query_PD[number], document_XD)

        def encoded(weights: Weights | None, numbers: tuple[int, ...]) -> tuple[Vectors, Vectors]:
            if weights is None:  # no pair is left to solve for
                return query_PD[list(numbers)], document_XD
            made = bound(weights, self.encoder, self.trained.sides)
            if isinstance(made, QueryMap):
                return made(query_PD[list(numbers)]), document_XD
            adapted = self.encoder.with_adapter(made)
            query_LD = adapted.encode([pairs[number][0] for number in numbers], "query")
            return query_LD, document_XD if made.sides == "query" else adapted.encode(documents, "document")

        return ranker(self.of, name, self.vectors, pairs, encoded)


def _checked(candidates: _Asked, corpus: Path | None, seed: int) -> OwnCheck | None:
    """The check by leaving pairs out; says why where there is none."""
    pairs = candidates.condition.pairs
    if len(pairs) < FEWEST_PAIRS:
        given = "one pair" if pairs else "no pairs"
        say(f"generate: {given} given, so nothing can be checked: whether it helps is not known")
        return None
    if len({query for query, _ in pairs}) < FEWEST_PAIRS or len({document for _, document in pairs}) < FEWEST_PAIRS:
        say("generate: all pairs share a text, so none can be left out: whether it helps is not known")
        return None
    texts = [] if corpus is None else list(dict.fromkeys(text for text in read_texts(corpus) if text.strip()))
    own = {document for _, document in pairs}
    distractors = evenly([text for text in texts if text not in own], MOST_DISTRACTORS[candidates.trained.sides])
    if corpus is None:
        others = counted(len(pairs) - 1, "documents")
        say(f"generate: checked against the {others} of the other pairs only; --corpus adds others")
    return own_check(candidates.rankers(distractors), pairs, len(distractors) + len(pairs) - 1, seed)


def _warn(candidates: _Asked) -> None:
    """Say where the condition is unlike what the hypernetwork was trained on."""
    for part, distance in candidates.distances.items():
        if distance > FAR:
            say(f"warning: the {part} given lies {distance:.1f} times as far from the training tasks as these lie from "
                "each other: expect a guess")  # fmt: skip
    condition = candidates.condition
    texts = [
        *([condition.description] if condition.description else []),
        *(q for q, _ in condition.pairs),
        *condition.texts,
    ]
    trained: Mapping[str, float] = candidates.trained.metrics.get("scripts", {})
    found = languages(texts)
    if trained and found and (script := max(found, key=lambda name: found[name])) not in trained:
        say(f"warning: the condition is written in {script}, the hypernetwork was trained on {', '.join(trained)} only")


def _write(
    folder: Path, made: Adapter | QueryMap, encoder: Encoder, report: dict[str, Any], told: TrainedOn
) -> dict[str, Any]:
    metrics = {name: report[name] for name in ("kept", "distance", "hypernetwork")}
    if report["check"] is not None:
        metrics |= {"checked_ndcg": report["check"]["ndcg"], "verdict": report["check"]["verdict"]}
    if isinstance(made, QueryMap):
        save_query_map(folder, replace(made, metrics=metrics), encoder)
    else:
        save_adapter(folder, replace(made, metrics=metrics), encoder.source)
    write_trained_on(folder, told)
    return report
