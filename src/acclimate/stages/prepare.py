"""`prepare`: raw data in any form -> a leak-free dataset folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.data import facts
from acclimate.data.build import build_dataset
from acclimate.data.dataset import Dataset, write_dataset
from acclimate.data.readers import source_hashes
from acclimate.data.reports import PreparedReport
from acclimate.progress import say
from acclimate.runs.step import Work, step
from acclimate.types import Rejected

UNLIMITED_TOKENS = 1_000_000
LONG_SHARE = 0.1
"""More texts than this beyond the model's limit are worth a warning."""


def prepare(source: str, out: Path, config: RunConfig) -> PreparedReport:
    """Read, clean, split and describe `source`, and write it to `out`.

    Args:
        source: a file, a folder, or `owner/name[:configuration]` of a dataset on the hub.
        out: the dataset folder; an older one is replaced whole, or kept when source and settings are unchanged.
        config: its `prepare` section, `seed`, `limit`, and the model whose tokens are counted.

    Returns:
        The report: counts, warnings, splits, and `timings["prepare_s"]` in seconds.

    Raises:
        DataError: the source cannot be used, by file and row.
        ModelError: the model's tokenizer cannot be loaded.
        StorageError: `out` cannot be written.
    """
    settings = {
        **asdict(config.prepare),
        "seed": config.seed,
        "limit": config.limit,
        "model": config.base_model,
        "max_tokens": config.max_tokens,
    }
    inputs = processes.on_main(lambda: source_hashes(source, config.prepare.corpus))

    def make() -> Work[PreparedReport]:
        say(f"prepare: reading {source}")
        dataset, rejected = build_dataset(source, config.prepare, seed=config.seed, limit=config.limit)
        _count_tokens(dataset, config)
        report: PreparedReport = {
            "source": source,
            "kind": dataset.kind,
            "counts": dataset.info["counts"],
            "splits": dataset.info["splits"],
            "warnings": dataset.info["warnings"],
        }
        _announce(report, rejected)

        def write(folder: Path) -> PreparedReport:
            write_dataset(folder, dataset, rejected)
            return report

        return Work(write)

    return step("prepare", out, settings, inputs, make, seconds="prepare_s", alone=True)


def _count_tokens(dataset: Dataset, config: RunConfig) -> None:
    """Add the token lengths of an even sample of both sides, in the run's model's own tokens, to the lengths."""
    # Imported here: bad data shall be told at once, not after the seconds that torch and transformers take to load.
    from acclimate.formats.folders import read_folder
    from acclimate.formats.sources import locate
    from acclimate.models.loading import load_tokenizer
    from acclimate.models.tokens import tokenise

    found = read_folder(locate(config.base_model)[0])
    tokenizer = load_tokenizer(found.transformer, lowercase=found.lowercase)
    limit = config.max_tokens or found.max_tokens
    for side, texts in facts.sides(dataset).items():
        lengths = tokenise(tokenizer, facts.evenly(texts), UNLIMITED_TOKENS).lengths
        longer = float((lengths > limit).mean()) if len(lengths) else 0.0
        dataset.info["lengths"][side]["tokens"] = facts.percentiles(lengths.tolist())
        dataset.info["lengths"][side]["longer_than_limit"] = {"max_tokens": limit, "share": round(longer, 4)}
        if longer > LONG_SHARE:
            dataset.info["warnings"].append(
                f"{longer:.0%} of the {side} are longer than {limit} tokens: the rest is not read (--max-tokens)"
            )


def _announce(report: PreparedReport, rejected: Sequence[Rejected]) -> None:
    for split, how in report["splits"].items():
        sizes = ", ".join(f"{count:,} {noun}" for noun, count in report["counts"].get(split, {}).items())
        say(f"  {split}: {sizes or 'nothing'} ({how})")
    if rejected:
        first = rejected[0]
        say(f"  {len(rejected):,} rows rejected; the first: {first.source} row {first.row}: {first.reason}")
    for warning in report["warnings"]:
        say(f"  warning: {warning}")
