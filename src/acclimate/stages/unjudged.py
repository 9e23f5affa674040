"""Users' queries of which nobody says what answers them: what base and adapted find, side by side, for people to look
at. They prove nothing, so there is no verdict on them."""

from __future__ import annotations

from pathlib import Path

from acclimate.configs import RunConfig
from acclimate.files import hash_file, hash_folder, iter_jsonl, write_jsonl
from acclimate.pairing.reports import UnjudgedReport
from acclimate.retrieval.rank import rank
from acclimate.runs.opening import open_dataset
from acclimate.runs.resolve import load_pair
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step

DEPTH = 10
SHOWN = 3
RESULTS_FILE = "results.jsonl"


def unjudged(queries: Path, run: RunFolder, config: RunConfig) -> UnjudgedReport:
    """Rank the run's corpus for queries without judgements, by base and by adapted; write `run/unjudged`.

    Args:
        queries: a JSONL file with a field `text`.
        run: with a dataset and an adapter.
        config: of the run.
    """
    inputs = {"queries": hash_file(queries), "dataset": hash_folder(run.dataset), "adapter": hash_folder(run.adapter)}

    def make() -> Work[UnjudgedReport]:
        corpus = open_dataset(run.dataset).corpus
        asked = [str(line.value["text"]) for line in iter_jsonl(queries) if line.value is not None]
        texts = {str(number): text for number, text in enumerate(asked)}
        base, adapted = (
            rank(model, texts, corpus, DEPTH, cache=run.cache)
            for model in load_pair(run.adapter, base=config.model, **config.loading)
        )
        first = sum(next(iter(base[key])) == next(iter(adapted[key])) for key in texts)
        shared = sum(len(base[key].keys() & adapted[key].keys()) / len(base[key]) for key in texts)
        report = UnjudgedReport(
            queries=len(texts),
            same_first=round(first / len(texts), 4),
            shared=round(shared / len(texts), 4),
            depth=DEPTH,
        )

        def write(folder: Path) -> UnjudgedReport:
            rows = (
                {
                    "query": text,
                    "base": [corpus[name] for name in list(base[key])[:SHOWN]],
                    "adapted": [corpus[name] for name in list(adapted[key])[:SHOWN]],
                }
                for key, text in texts.items()
            )
            write_jsonl(folder / RESULTS_FILE, rows)
            return report

        return Work(write)

    return step("real queries", run.unjudged, {"depth": DEPTH}, inputs, make, seconds="unjudged_s", reads=[queries])
