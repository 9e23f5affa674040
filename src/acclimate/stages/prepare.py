"""`prepare`: raw data in any form -> a leak-free dataset folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.data import facts
from acclimate.data.build import build_dataset
from acclimate.data.dataset import Dataset, write_dataset
from acclimate.data.readers import source_hashes
from acclimate.files import REPORT_FILE, artifact, is_current, read_json, write_json
from acclimate.progress import say
from acclimate.types import Rejected

UNLIMITED_TOKENS = 1_000_000
LONG_SHARE = 0.1
"""More texts than this beyond the model's limit are worth a warning."""


def prepare(source: str, out: Path, config: RunConfig) -> dict[str, Any]:
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
    return processes.on_main(lambda: _prepare(source, out, config))


def _prepare(source: str, out: Path, config: RunConfig) -> dict[str, Any]:
    started = time.monotonic()
    settings = {
        **asdict(config.prepare),
        "seed": config.seed,
        "limit": config.limit,
        "model": config.base_model,
        "max_tokens": config.max_tokens,
    }
    inputs = source_hashes(source, config.prepare.corpus)
    if is_current(out, settings, inputs):
        say(f"prepare: {out} is kept, source and settings are unchanged")
        return read_json(out / REPORT_FILE)
    say(f"prepare: reading {source}")
    dataset, rejected = build_dataset(source, config)
    _count_tokens(dataset, config)
    with artifact(out, settings, inputs) as folder:
        write_dataset(folder, dataset, rejected)
        shown = {key: dataset.info[key] for key in ("kind", "counts", "splits", "warnings")}
        report = {"source": source, **shown, "timings": {"prepare_s": round(time.monotonic() - started, 3)}}
        write_json(folder / REPORT_FILE, report)
    _announce(report, rejected)
    return report


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


def _announce(report: dict[str, Any], rejected: Sequence[Rejected]) -> None:
    for split, how in report["splits"].items():
        sizes = ", ".join(f"{count:,} {noun}" for noun, count in report["counts"].get(split, {}).items())
        say(f"  {split}: {sizes or 'nothing'} ({how})")
    if rejected:
        first = rejected[0]
        say(f"  {len(rejected):,} rows rejected; the first: {first.source} row {first.row}: {first.reason}")
    for warning in report["warnings"]:
        say(f"  warning: {warning}")
