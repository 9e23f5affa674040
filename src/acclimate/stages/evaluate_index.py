"""`evaluate --index`: dense, lexical and hybrid search of the test queries, through the index itself."""

from __future__ import annotations

import time
from pathlib import Path

from acclimate import processes
from acclimate.configs import RunConfig, used
from acclimate.data.dataset import Dataset
from acclimate.errors import DataError
from acclimate.evaluation.compare import METHOD, judged_queries
from acclimate.evaluation.reports import IndexEvaluation
from acclimate.evaluation.through_index import DEPTH, Asked, choose_fusion, dev_queries, documents_missing, measure
from acclimate.files import REPORT_FILE, artifact, hash_folder, write_json
from acclimate.models.text_encoder import TextEncoder
from acclimate.ownership import check_replaceable, written_by
from acclimate.retrieval.index.of_run import (
    check_own_files,
    fusion_of,
    index_for,
    index_place,
    query_model,
    write_fusion,
)
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.trec import write_trec
from acclimate.runs.opening import load_current, open_retrieval_dataset
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import parts_read
from acclimate.runs.tasks import one_task
from acclimate.runs.trained_on import trained_on, without_seen
from acclimate.runs.versions import NAME_CHARS, in_use
from acclimate.types import Queries

KIND = "evaluate_index"


def evaluate_index(run: Path, config: RunConfig) -> IndexEvaluation:
    """Choose the fusion on dev, and measure every mode of the run's index on test; write it to `RUN/index_evaluation`.

    Args:
        run: the run's folder; its dataset gives queries and judgements.
        config: shared fields, `sign_flips`, `confidence`, and where the index is.

    Returns:
        what `report.json` there holds; beside it are `runs/{dense,lexical,hybrid}.trec`.

    Raises:
        StorageError: there is no index, or no dataset.
        UsageError: the index holds vectors of another space; the dataset holds labelled pairs.
        DataError: nothing to test on; the index lacks documents that are judged relevant.
    """
    return processes.on_main(lambda: _evaluate(run, config))  # a query is encoded as fast as it is handed on


def _evaluate(run: Path, config: RunConfig) -> IndexEvaluation:
    started = time.monotonic()
    task = one_task(run, config)
    data, place = open_retrieval_dataset(task.dataset), index_place(task)
    adapter, out = RunFolder(run).adapter, task.folder.index_evaluation
    check_own_files(task)
    check_replaceable(out, written_by(KIND), parts_read([task.dataset, adapter, place, *config.named]))
    data, left_out = without_seen(data, trained_on([adapter, config.model]), "the dataset")
    queries, qrels = judged_queries(data)
    encoder = load_current(adapter, config.model, **task.config.loading)
    with index_for(place, encoder, run) as index:
        _require_corpus(index, data, place, run)
        dev, dev_qrels = dev_queries(data)
        choice = choose_fusion(index, _asked(encoder, dev), dev_qrels, task.config.index.refuse)
        fusion = fusion_of(choice)
        test = _asked(encoder, queries)
        measured, runs = measure(index, test, qrels, data, fusion, config.evaluate, config.seed)
        backend = index.info().backend
    report: IndexEvaluation = {
        "queries": measured["queries"],
        "documents": measured["documents"],
        "modes": measured["modes"],
        "delta": measured["delta"],
        "confidence": measured["confidence"],
        "exact_recall": measured["exact_recall"],
        "place": place,
        "backend": backend,
        "model": encoder.source.id,
        "trained_on": left_out,
        "fusion": choice,
        "timings": {"evaluate_index_s": round(time.monotonic() - started, 3)},
    }
    if (used_adapter := in_use(adapter)).is_dir():
        report["adapter_version"] = hash_folder(used_adapter)[:NAME_CHARS]
    inputs = {"method": METHOD, "dataset": hash_folder(task.dataset), "space": encoder.space.digest}
    # An index changes from day to day, so what was measured before is never kept.
    with artifact(out, used(config, "evaluate RUN --index"), inputs, kind=KIND) as folder:
        (folder / "runs").mkdir()
        for mode, ranked in runs.items():
            write_trec(folder / "runs" / f"{mode}.trec", ranked, mode, DEPTH)
        write_json(folder / REPORT_FILE, report)
    write_fusion(task, choice)
    return report


def _asked(encoder: TextEncoder, queries: Queries) -> Asked:
    return Asked(queries, encoder.encode(list(queries.values()), "query"), query_model(encoder))


def _require_corpus(index: Index, data: Dataset, place: str, run: Path) -> None:
    """Make sure that what is judged relevant can be found at all.

    Raises:
        DataError: it cannot, because it is not in the index.
    """
    missing = documents_missing(index, data)
    if missing:
        raise DataError(
            f"of the documents that are judged relevant, {len(missing):,} are not in {place}; the first is "
            f"{missing[0][:80]!r}",
            fix=f"Index the run's own corpus: acclimate index {run}",
        )
