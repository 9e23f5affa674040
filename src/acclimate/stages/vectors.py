"""`vectors`: what the forms in which a run's document vectors can be stored cost, and what they lose."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from acclimate.configs import RunConfig, used
from acclimate.evaluation.compare import METHOD, judged_queries
from acclimate.evaluation.reports import VectorsReport
from acclimate.evaluation.through_forms import asked_dims, measure_forms
from acclimate.files import hash_folder
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.runs.opening import load_current, open_retrieval_dataset, retriever_hash
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.tasks import one_task
from acclimate.runs.trained_on import trained_on, without_seen
from acclimate.runs.versions import NAME_CHARS, in_use


def vectors(run: Path, config: RunConfig) -> VectorsReport:
    """Measure the forms on the test split of a run; write them to `RUN/vectors`.

    Args:
        run: the run's folder.
        config: shared fields, `vectors`, `sign_flips` and `confidence`.

    Returns:
        what `report.json` there holds.

    Raises:
        StorageError: there is no dataset.
        UsageError: the dataset holds labelled pairs; more dimensions than the model has.
        DataError: nothing to test on.
    """
    task, adapter = one_task(run, config), RunFolder(run).adapter
    data = open_retrieval_dataset(task.dataset)
    seen = trained_on([adapter, config.model])
    inputs = {
        "method": METHOD,
        "dataset": hash_folder(task.dataset),
        "model": retriever_hash(adapter, "auto", config.model, pooling=config.pooling),
        "trained_on": seen.sha256,
    }

    def make() -> Work[VectorsReport]:
        encoder = load_current(adapter, config.model, **task.config.loading)
        asked_dims(config.vectors, encoder.use.dim)
        kept, left_out = without_seen(data, seen, "the dataset")
        queries, _ = judged_queries(kept)
        query_ND = encoder.encode(list(queries.values()), "query")
        document_MD = encode_corpus(encoder, list(kept.corpus.values()), RunFolder(run).cache, "documents")
        rows = measure_forms(query_ND, np.asarray(document_MD), kept, config.vectors, config.evaluate, config.seed)
        report: VectorsReport = {
            "model": encoder.source.id,
            "queries": len(queries),
            "documents": len(kept.corpus),
            "confidence": config.evaluate.confidence,
            "oversampling": config.vectors.oversampling,
            "trained_on": left_out,
            "rows": rows,
        }
        if (version := in_use(adapter)).is_dir():
            report["adapter_version"] = hash_folder(version)[:NAME_CHARS]
        return Work(lambda _: report)

    reads: list[str | Path] = [task.dataset, adapter, *config.named]
    settings = used(config, "vectors")
    return step("vectors", task.folder.vectors, settings, inputs, make, seconds="vectors_s", reads=reads)
