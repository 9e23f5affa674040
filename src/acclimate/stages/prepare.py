"""`prepare`: raw data in any form -> a leak-free dataset folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.core.same_text import TokenKeys
from acclimate.counting import counted
from acclimate.data import facts
from acclimate.data.build import build_datasets
from acclimate.data.dataset import Dataset, write_dataset
from acclimate.data.readers import source_hashes
from acclimate.data.reports import PreparedReport
from acclimate.data.splits import Fold
from acclimate.formats.folders import read_folder
from acclimate.formats.sources import locate, tokenizer_hash
from acclimate.progress import say
from acclimate.runs.step import Work, step
from acclimate.runs.tasks import BESIDE, TOKENIZER
from acclimate.types import Rejected, Split

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
    return prepare_together([(source, out, config)])[0]


def prepare_together(
    parts: Sequence[tuple[str, Path, RunConfig]], fold: Fold | None = None, whole: Split | None = None
) -> list[PreparedReport]:
    """Prepare all data sets of a run: they are split together, so that none trains on what another is tested with.

    Args:
        parts: of each data set the source, the folder to write, and its settings; otherwise as `prepare`.
        fold: of the only data set, this part is the test (cross-validation), or there is none (`ALL_DATA`).
        whole: the split that takes all rows, where nothing is held apart.
    """
    first = parts[0][2]
    hashes = processes.on_main(lambda: [source_hashes(source, config.prepare.corpus) for source, _, config in parts])
    tokenizer = processes.on_main(lambda: tokenizer_hash(first.base_model))

    @cache
    def built() -> list[tuple[Dataset, list[Rejected]]]:
        for source, _, _ in parts:
            say(f"prepare: reading {source}")
        sources = [(source, config.prepare) for source, _, config in parts]
        keys = _token_keys(first)
        return build_datasets(sources, seed=first.seed, limit=first.limit, token_keys=keys, fold=fold, whole=whole)

    reports = []
    reads = [name for source, _, config in parts for name in (source, *config.named)]
    for number, (source, out, config) in enumerate(parts):
        others = [other for other in range(len(parts)) if other != number]
        beside = {f"{BESIDE}{other}: {name}": value for other in others for name, value in hashes[other].items()}
        inputs = {**hashes[number], TOKENIZER: tokenizer, **beside}
        settings = {
            **asdict(config.prepare),
            "seed": config.seed,
            "limit": config.limit,
            "model": config.base_model,
            "max_tokens": config.max_tokens,
            **({"fold": str(fold)} if fold else {}),
            **({"whole": whole} if whole else {}),
            **({"beside": [asdict(parts[other][2].prepare) for other in others]} if others else {}),
        }
        make = partial(_prepared, source, config, number, built)
        reports.append(step("prepare", out, settings, inputs, make, seconds="prepare_s", reads=reads, alone=True))
    return reports


def _prepared(
    source: str, config: RunConfig, number: int, built: Callable[[], list[tuple[Dataset, list[Rejected]]]]
) -> Work[PreparedReport]:
    dataset, rejected = built()[number]
    _count_tokens(dataset, config)
    report: PreparedReport = {
        "source": source,
        "kind": dataset.kind,
        "counts": dataset.info["counts"],
        "splits": dataset.info["splits"],
        "warnings": dataset.info["warnings"],
    }
    if "made_by" in dataset.info:
        report["made_by"] = dataset.info["made_by"]
    _announce(report, rejected)

    def write(folder: Path) -> PreparedReport:
        write_dataset(folder, dataset, rejected)
        return report

    return Work(write)


def _token_keys(config: RunConfig) -> TokenKeys:
    """What the run's model makes of texts: those of equal tokens are the same to it. A text with an unknown token has
    no key: behind that token the texts may differ."""

    def keys(texts: Sequence[str]) -> list[bytes | None]:
        from acclimate.models.tokens import tokenise  # when the data is read: see `_tokenizer`

        tokenizer, _ = _tokenizer(config)
        tokens, unknown = tokenise(tokenizer, texts, UNLIMITED_TOKENS), tokenizer.unk_token_id
        rows = (tokens.row(index) for index in range(len(texts)))
        return [
            None if unknown is not None and unknown in row else blake2b(row.tobytes(), digest_size=16).digest()
            for row in rows
        ]

    return keys


def _tokenizer(config: RunConfig) -> tuple[Any, int]:
    """The run's tokenizer, and how many tokens its model reads."""
    # Imported here: bad data shall be told at once, not after the seconds that torch and transformers take to load.
    from acclimate.models.loading import load_tokenizer

    found = read_folder(locate(config.base_model)[0])
    tokenizer = load_tokenizer(found.transformer, lowercase=found.lowercase)
    return tokenizer, config.max_tokens or found.max_tokens


def _count_tokens(dataset: Dataset, config: RunConfig) -> None:
    """Add what the run's model reads of an even sample of both sides: lengths in its own tokens, unknown tokens, texts
    that it cannot tell apart."""
    from acclimate.models.reading import read_texts, reading_warnings  # when the data is read: see `_tokenizer`
    from acclimate.models.tokens import tokenise

    tokenizer, limit = _tokenizer(config)
    readings = {}
    for side, texts in facts.sides(dataset).items():
        some = facts.evenly(texts)
        lengths = tokenise(tokenizer, some, UNLIMITED_TOKENS).lengths
        longer = float((lengths > limit).mean()) if len(lengths) else 0.0
        dataset.info["lengths"][side]["tokens"] = facts.percentiles(lengths.tolist())
        dataset.info["lengths"][side]["longer_than_limit"] = {"max_tokens": limit, "share": round(longer, 4)}
        readings[side] = read_texts(tokenizer, some, limit)
        if longer > LONG_SHARE:
            dataset.info["warnings"].append(
                f"{longer:.0%} of the {side} are longer than {limit} tokens: the rest is not read (--max-tokens)"
            )
    dataset.info["reading"] = readings
    dataset.info["warnings"][:0] = reading_warnings(readings)  # nothing else matters as much


def _announce(report: PreparedReport, rejected: Sequence[Rejected]) -> None:
    for split, how in report["splits"].items():
        sizes = ", ".join(counted(count, noun) for noun, count in report["counts"].get(split, {}).items())
        say(f"  {split}: {sizes or 'nothing'} ({how})")
    if rejected:
        say(f"  {facts.by_reason(rejected)}")
    for warning in report["warnings"]:
        say(f"  warning: {warning}")
