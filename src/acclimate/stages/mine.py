"""`mine`: hard negatives for a prepared dataset."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from acclimate.configs import RunConfig, effective
from acclimate.data.dataset import Dataset
from acclimate.engine.audit import Audit
from acclimate.engine.mine import Material, MinedBlock, MinedQuery, material, mine_negatives
from acclimate.engine.run_folder import cache_folder, open_dataset
from acclimate.errors import DataError, UsageError
from acclimate.files import REPORT_FILE, artifact, hash_folder, is_current, read_json, storage_errors, write_json
from acclimate.models.adapter import load_encoder
from acclimate.models.adapter_files import adapter_folder, full_folder
from acclimate.models.encoder import Encoder
from acclimate.models.reranker import Reranker
from acclimate.models.sources import hash_weights, locate, resolve_model
from acclimate.progress import say
from acclimate.types import Example

Row: TypeAlias = dict[str, Any]
ToRows: TypeAlias = Callable[[MinedQuery, list[Example]], Iterable[Row]]
"""(a mined query, its training examples with the negatives that the data brought) -> rows of one file."""


def mine(dataset: Path, out: Path, config: RunConfig) -> dict[str, Any]:
    """Mine hard negatives for every training query, and write them in three forms beside an audit.

    Negatives that the data brought stay in front of the mined ones, except those that are a positive of the same
    query, the query itself, or judged for a dev or test query.

    Args:
        dataset: a folder that `prepare` wrote.
        out: `RUN/negatives`; vectors are cached in `RUN/.work/cache`.
        config: the whole run; the `mine` section and the model count.

    Returns:
        what `out/report.json` holds: the audit's counts and `timings`.

    Raises:
        UsageError: the dataset holds labelled pairs, which have no corpus to mine.
        ModelError: the teacher or the reranker cannot be loaded.
        StorageError: there is no dataset, or `out` cannot be written.
    """
    started = time.perf_counter()
    inputs = {"dataset": hash_folder(dataset), **_model_hashes(config)}
    effective_config = effective(config, "mine")
    if is_current(out, effective_config, inputs):
        say(f"mine: {out} is up to date")
        return read_json(out / REPORT_FILE)
    loaded = open_dataset(dataset)
    _check_minable(loaded, dataset)
    with artifact(out, effective_config, inputs) as folder:
        report = _mine_into(folder, loaded, config, cache_folder(out.parent))
        report["timings"] = {"mine_s": round(time.perf_counter() - started, 3)}
        write_json(folder / REPORT_FILE, report)
    return report


def _model_hashes(config: RunConfig) -> dict[str, str]:
    """What the ranking depends on: the teacher's weights (and adapter), and the reranker's weights."""
    teacher, reranker = config.mine.teacher, config.mine.reranker
    if teacher is None:
        hashes = {"model": resolve_model(config.model, pooling=config.pooling).sha256}
    elif (trained := adapter_folder(teacher) or full_folder(teacher)) is not None:
        hashes = {"model": hash_folder(trained)}
    else:
        hashes = {"model": resolve_model(teacher).sha256}
    return hashes | ({"reranker": hash_weights(locate(reranker)[0])} if reranker else {})


def _check_minable(dataset: Dataset, folder: Path) -> None:
    if dataset.kind == "pairs":
        raise UsageError(
            f"{folder} holds labelled pairs, which have no corpus to mine",
            fix="Train on the pairs directly: acclimate train needs no negatives for them.",
        )
    if not dataset.examples:
        raise DataError(f"{folder} has no training examples", fix="Prepare data with a train split.")


def _mine_into(folder: Path, dataset: Dataset, config: RunConfig, cache: Path) -> Row:
    """Mine, write everything into `folder`, and return the counts."""
    settings = config.mine
    gathered = material(dataset)
    examples, dropped = _examples_by_query(dataset.examples, gathered)
    audit = Audit(settings.num_negatives, {text: query_id for query_id, text in dataset.queries.items()})
    blocks = mine_negatives(gathered, _teacher(config), settings, config.seed, reranker=_reranker(config), cache=cache)
    files = {
        "examples.jsonl": OUTPUTS[settings.output],
        "rejected_response.jsonl": _rejected_responses,
        "query_pos_neg.jsonl": _query_pos_neg,
    }
    if settings.include_positives:
        files["ranked.jsonl"] = _ranked_lists
    rows = _write_files(folder, files, examples, _watched(blocks, audit))
    write_json(folder / "audit.json", audit.summary())
    counts = {name: value for name, value in audit.summary().items() if isinstance(value, int | float | None)}
    return {**counts, "removed": dict(audit.removed), "given_negatives_dropped": dropped, "rows": rows}


def _teacher(config: RunConfig) -> Encoder:
    """The run's own model with the run's own prompts, or another model (or run, or adapter) with its own."""
    if config.mine.teacher is None:
        return Encoder.from_config(config)
    return load_encoder(config.mine.teacher, device=config.device, dtype=config.dtype)


def _reranker(config: RunConfig) -> Reranker | None:
    name = config.mine.reranker
    return Reranker.load(name, device=config.device, dtype=config.dtype) if name else None


def _examples_by_query(examples: Iterable[Example], gathered: Material) -> tuple[dict[str, list[Example]], int]:
    """Training examples by query text, without given negatives that cannot be negatives, and how many those were."""
    by_query: dict[str, list[Example]] = {}
    dropped = 0
    for example in examples:
        positives = {gathered.documents[index] for index in gathered.positives[example.anchor]}
        never = positives | {example.anchor}
        negatives = tuple(text for text in example.negatives if text not in never and text not in gathered.held_out)
        dropped += len(example.negatives) - len(negatives)
        by_query.setdefault(example.anchor, []).append(replace(example, negatives=negatives, scores=None))
    return by_query, dropped


def _watched(blocks: Iterable[MinedBlock], audit: Audit) -> Iterator[MinedQuery]:
    for block in blocks:
        audit.add(block)
        yield from block.queries


def _write_files(
    folder: Path, files: Mapping[str, ToRows], examples: Mapping[str, list[Example]], mined: Iterable[MinedQuery]
) -> dict[str, int]:
    """Write all files side by side, one query at a time; returns the rows of each."""
    counts = dict.fromkeys(files, 0)
    with storage_errors(folder), ExitStack() as stack:
        streams = {name: stack.enter_context((folder / name).open("w", encoding="utf-8")) for name in files}
        for query in mined:
            for name, to_rows in files.items():
                for row in to_rows(query, examples[query.query]):
                    streams[name].write(json.dumps(row, ensure_ascii=False) + "\n")
                    counts[name] += 1
    return counts


def _n_tuples(mined: MinedQuery, examples: list[Example]) -> Iterator[Row]:
    """One row per positive with all negatives; scores where the same teacher gave all of them."""
    scores = {one.document: one.score for one in mined.positives}
    for example in examples:
        row: Row = {"anchor": example.anchor, "positive": example.positive, "negatives": _negatives(mined, example)}
        if mined.negatives and not example.negatives:
            row["scores"] = [scores[example.positive], *(one.score for one in mined.negatives)]
        yield row


def _triplets(mined: MinedQuery, examples: list[Example]) -> Iterator[Row]:
    """One row per positive and negative."""
    for row in _n_tuples(mined, examples):
        scores = row.pop("scores", [])
        for place, negative in enumerate(row["negatives"], start=1):
            yield row | {"negatives": [negative]} | ({"scores": [scores[0], scores[place]]} if scores else {})


def _labelled(mined: MinedQuery, examples: list[Example]) -> Iterator[Row]:
    """One row per document: label 1 for the positives, 0 for the negatives."""
    for one in mined.positives:
        yield {"anchor": mined.query, "positive": one.document, "label": 1.0}
    for text in _all_negatives(mined, examples):
        yield {"anchor": mined.query, "positive": text, "label": 0.0}


OUTPUTS: dict[str, ToRows] = {"n-tuple": _n_tuples, "triplet": _triplets, "labelled": _labelled}


def _rejected_responses(mined: MinedQuery, examples: list[Example]) -> Iterator[Row]:
    for example in examples:
        rejected = _negatives(mined, example)
        yield {"query": example.anchor, "response": example.positive, "rejected_response": rejected}


def _query_pos_neg(mined: MinedQuery, examples: list[Example]) -> Iterator[Row]:
    positives = [one.document for one in mined.positives]
    yield {"query": mined.query, "pos": positives, "neg": _all_negatives(mined, examples)}


def _ranked_lists(mined: MinedQuery, _examples: list[Example]) -> Iterator[Row]:
    """The query's candidates with its positives in place, best first: for inspection, or to test rerankers."""
    both = [(one, True) for one in mined.positives] + [(one, False) for one in mined.ranked]
    both.sort(key=lambda entry: -entry[0].score)
    documents = [{"text": one.document, "score": one.score, "positive": positive} for one, positive in both]
    yield {"query": mined.query, "documents": documents}


def _negatives(mined: MinedQuery, example: Example) -> list[str]:
    """The negatives that the data brought, then the mined ones; each text once."""
    return list(dict.fromkeys([*example.negatives, *(one.document for one in mined.negatives)]))


def _all_negatives(mined: MinedQuery, examples: list[Example]) -> list[str]:
    """The same over all of a query's examples."""
    return list(dict.fromkeys(text for example in examples for text in _negatives(mined, example)))
