"""The command `pairs`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command, ConfigFile, Given


def pairs(
    *documents: Path,
    out: Path,
    annotate: Path | None = None,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """Pairs out of documents, where nobody has asked anything yet: queries made for their passages.

    Args:
        documents: JSONL, CSV, TSV, parquet, BEIR folders, folders of .txt, .md, .html, .pdf and .docx, hub ids of data
            sets.
        out: a .jsonl file of the pairs; the passages, and what was left out, go to a folder beside it.
        annotate: also write pairs for an expert to this .csv or .jsonl file, to be given to --annotated.
        config: TOML file with settings; flags win over it.
        settings: of the pairs.
    """
    from acclimate.cli import pairs_tables
    from acclimate.flows.from_documents import pairs as verb

    pairs_tables.show_pairs(verb(documents, out=out, annotate=annotate, config=config, **settings), out)


COMMAND = Command(
    "pairs",
    pairs,
    example="acclimate pairs manuals/ --out pairs.jsonl",
    first=(
        "pair_sources",
        "pairs_limit",
        "passage_words",
        "queries",
        "annotated",
        "llm",
        "llm_model",
        "asked_passages",
        "judge",
        "llm_requests_per_minute",
    ),
)
