"""`pairs`: documents -> pairs to train on and to prove with, and the passages that are ranked."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from acclimate.configs import RunConfig
from acclimate.configs.pairs import WRITTEN
from acclimate.data.documents import Documents
from acclimate.data.made import PAIRS_FILE, PASSAGES_FILE, QUERIES_FILE, REAL, STAND_INS
from acclimate.errors import DataError
from acclimate.files import hash_config, hash_file, iter_jsonl, work_folder, write_jsonl
from acclimate.formats.chat import ChatClient
from acclimate.pairing.annotations import (
    agreements,
    annotated,
    check_for_experts,
    read_annotations,
    write_for_experts,
)
from acclimate.pairing.made_pair import MadePair
from acclimate.pairing.real import RealQueries, read_real_queries
from acclimate.pairing.reports import AgreementRow, PairsReport, SourceRow
from acclimate.pairing.sources import MAKERS
from acclimate.pairing.splitting import SplitPairs, split_pairs, without_ambiguous
from acclimate.pairing.streaming import Streamed, streamed
from acclimate.pairing.templates import VERSION as TEMPLATES
from acclimate.pairing.writing import LOG_FILE, Endpoint, judged, written_queries
from acclimate.progress import progress, say
from acclimate.runs.step import Work, step
from acclimate.types import Split

CLUSTER_PASSAGES = 10_000
"""Passages among which mates are looked for: all have to be encoded."""
ROUND_TRIP_PASSAGES = 10_000
"""Passages among which a written query has to find its own."""
FEW_PAIRS = 200
REJECTED_FILE = "rejected.jsonl"
FEW_REAL = 100


def pairs(sources: Sequence[Path], out: Path, config: RunConfig, *, annotate: Path | None = None) -> PairsReport:
    """Make pairs out of documents, and write them to a folder that `prepare` reads.

    After an interruption the same call goes on: with the documents that were not read yet, and with the requests that
    an endpoint has not answered yet.

    Args:
        sources: files, folders, hub ids (`data.documents`).
        out: the folder to write: `pairs.jsonl`, `passages.jsonl` and what was left out.
        config: shared fields, `pairs`, `endpoint`, and the fractions and columns of `prepare` and `index`.
        annotate: also write pairs for experts to this file.

    Raises:
        DataError: a source cannot be read, or nothing can be made of it.
        ChatError: the endpoint fails; what it has answered is kept.
    """
    if annotate is not None:
        check_for_experts(annotate)
    documents = Documents(list(sources), config.index.text_field, distinct=False)
    settings = {
        **asdict(config.pairs),
        "seed": config.seed,
        **({"model": _model(config)} if _needs_model(config) else {}),
        "test_fraction": config.prepare.test_fraction,
        "dev_fraction": config.prepare.dev_fraction,
        "text_field": config.index.text_field,
        "llm_model": config.endpoint.llm_model,
        "templates": TEMPLATES,
    }
    files = [config.pairs.queries, *config.pairs.annotated]
    inputs = {"documents": documents.hash()}
    inputs |= {f"file {number}": hash_file(Path(name)) for number, name in enumerate(files) if name is not None}
    making = _Making(documents, out, config, hash_config({**settings, **inputs}))
    reads: list[str | Path] = [*sources, *(name for name in files if name is not None)]
    report = step("pairs", out, settings, inputs, making.run, seconds="pairs_s", reads=reads, alone=True)
    if annotate is not None:
        made = [MadePair.of(line) for line in _rows(out / PAIRS_FILE)]
        count = write_for_experts(annotate, [pair for pair in made if pair.made_by != REAL])
        report = {**report, "annotate": {"file": str(annotate), "pairs": count}}
    return report


@dataclass
class _Making:
    """Pairs in the making."""

    documents: Documents
    out: Path
    config: RunConfig
    key: str
    """A hash of whatever the result depends on."""
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(source, why) -> pairs."""
    more: dict[str, Any] = field(default_factory=dict)
    """What else the report says."""
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def work(self) -> Path:
        """For what is in progress; it stays until the folder is written."""
        folder = work_folder(self.out)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def run(self) -> Work[PairsReport]:
        """Make everything; what is returned writes it."""
        settings = self.config.pairs
        real = RealQueries() if settings.queries is None else read_real_queries(Path(settings.queries))
        found = self._streamed(real)
        drawn = {source: found.made(source) for source in found.pairs}
        made = Counter({source: sample.offered for source, sample in found.pairs.items()})
        for source, pairs in self._modelled(found).items():
            made[source], drawn[source] = len(pairs), pairs[: settings.pairs_limit]
        kept, ambiguous = without_ambiguous([pair for pairs in drawn.values() for pair in pairs])
        self.dropped += ambiguous
        kept = self._checked(kept)
        judged_by_users = self._real(real, found)
        if not kept:
            raise DataError(
                f"{', '.join(map(str, self.documents.sources))}: no pair can be made of {found.documents:,} documents",
                possible="documents with titles, headings, questions or several passages; --llm URL; "
                "--pair-sources crop (words of the texts, which teach little about what users ask)",
            )
        split = split_pairs(
            kept,
            test_fraction=0.0 if judged_by_users else self.config.prepare.test_fraction,
            dev_fraction=self.config.prepare.dev_fraction,
            seed=self.config.seed,
            documents=found.documents,
        )
        self.dropped += split.dropped
        split.splits["test"] += judged_by_users
        report = self._report(found, made, drawn, split)
        self._say(report)
        return Work(lambda folder: self._write(folder, found, split, real, report))

    def _streamed(self, real: RealQueries) -> Streamed:
        settings = self.config.pairs
        with progress("pairs", self.documents.count(), "documents") as advance:
            return streamed(
                self.documents,
                settings.pair_sources,
                words=settings.passage_words,
                pairs_limit=settings.pairs_limit,
                passages_limit=settings.passages_limit,
                seed=self.config.seed,
                wanted=real.by_document,
                state=self.work / "state",
                key=self.key,
                advance=advance,
            )

    def _modelled(self, found: Streamed) -> dict[str, list[MadePair]]:
        """The pairs that need a model: cluster mates, written queries."""
        modelled: dict[str, list[MadePair]] = {}
        if "cluster" in self.config.pairs.pair_sources:
            from acclimate.pairing.clusters import cluster_mates  # with scikit-learn

            rows = _first(found, CLUSTER_PASSAGES)
            vectors = self.encoder.encode([text for _, text in rows], "document", label="encode for clusters")
            modelled["cluster"] = list(cluster_mates(rows, vectors, self.config.seed))
        if self.config.endpoint.llm is not None:
            modelled[WRITTEN] = self._written(found)
        return modelled

    @cached_property
    def encoder(self) -> Any:
        """The run's model: loaded where something is encoded."""
        from acclimate.runs.resolve import load_whole

        return load_whole(self.config.base_model, **self.config.loading)

    def _written(self, found: Streamed) -> list[MadePair]:
        """Queries of the endpoint, as far as they hold."""
        settings, endpoint = self.config.pairs, self.config.endpoint
        if (before := self.out / LOG_FILE).is_file() and not (self.work / LOG_FILE).exists():
            shutil.copyfile(before, self.work / LOG_FILE)  # answers of an earlier making
        rows = _first(found, settings.asked_passages)
        address, model = cast(tuple[str, str], (endpoint.llm, endpoint.llm_model))
        with ChatClient(address, model, requests_per_minute=endpoint.llm_requests_per_minute) as client:
            asked = Endpoint(client, self.work / LOG_FILE, endpoint.llm_parallel)
            pairs, dropped = written_queries(rows, settings.query_styles, asked)
            written = len(pairs) + dropped["repeated"] + dropped["copies the passage"]
            pairs, lost = self._round_trip(pairs, found)
            dropped["not found again"] = lost
            if settings.judge:
                pairs, dropped["judged as not answered"] = judged(pairs, asked)
            self.more["llm"] = {
                "model": model,
                "address": client.shown_url,
                "passages": len(rows),
                "written": written,
                "kept": len(pairs),
                "dropped": {why: count for why, count in dropped.items() if count},
                **asked.usage.report(settings.llm_prices),
            }
        return pairs

    def _round_trip(self, pairs: list[MadePair], found: Streamed) -> tuple[list[MadePair], int]:
        """The pairs whose query finds its passage, and how many others there are."""
        from acclimate.pairing.round_trip import finds

        if not pairs:
            return [], 0
        pool = [text for _, text in _first(found, ROUND_TRIP_PASSAGES)]
        texts = list(dict.fromkeys([*(pair.positive for pair in pairs), *pool]))
        passages = self.encoder.encode(texts, "document", label="encode passages")
        queries = self.encoder.encode([pair.query for pair in pairs], "query")
        found_again = finds(pairs, texts, queries, passages, self.config.pairs.round_trip_k)
        kept = [pair for pair, holds in zip(pairs, found_again, strict=True) if holds]
        return kept, len(pairs) - len(kept)

    def _checked(self, pairs: list[MadePair]) -> list[MadePair]:
        """The pairs as experts have left them."""
        names = self.config.pairs.annotated
        if not names:
            return pairs
        experts = [read_annotations(Path(name)) for name in names]
        kept, decided = annotated(pairs, experts)
        for pair in {pair.id: pair for pair in pairs}.values():
            if any(expert.get(pair.id) and expert[pair.id].decision == "reject" for expert in experts):
                self.dropped[pair.made_by, "rejected by an expert"] += 1
        self.more["experts"] = dict(decided)
        if unknown := sum(len(expert.keys() - {pair.id for pair in pairs}) for expert in experts):
            self.warnings.append(f"{unknown:,} decisions of experts are about pairs that are not made any more")
        self.more["agreement"] = [
            AgreementRow(
                experts=[Path(names[first]).name, Path(names[second]).name],
                pairs=found.pairs,
                agreed=round(found.agreed, 4),
                kappa=None if found.kappa is None else round(found.kappa, 4),
            )
            for first, second, found in agreements(experts)
        ]
        return kept

    def _real(self, real: RealQueries, found: Streamed) -> list[MadePair]:
        """The judged queries of users, as pairs."""
        if self.config.pairs.queries is None:
            return []
        pairs = [
            MadePair(query, passage.text, REAL, document)
            for document, queries in real.by_document.items()
            for query in queries
            for passage in found.wanted.get(document, ())
        ]
        pairs += [MadePair(query, text, REAL, "") for query, text in real.answered]
        judged_queries = len({pair.query for pair in pairs})
        self.more["real"] = {"queries": real.count, "judged": judged_queries, "alone": len(set(real.alone))}
        if missing := real.by_document.keys() - found.wanted.keys():
            self.warnings.append(f"{len(missing):,} documents of {self.config.pairs.queries} are not among these")
        if pairs and judged_queries < FEW_REAL:
            self.warnings.append(
                f"{judged_queries} real queries with judgements, fewer than {FEW_REAL}: only large differences can be "
                "proven by them"
            )
        return pairs

    def _report(
        self, found: Streamed, made: Counter[str], drawn: dict[str, list[MadePair]], split: SplitPairs
    ) -> PairsReport:
        kept = [pair for pairs in split.splits.values() for pair in pairs]
        rows: dict[str, SourceRow] = {}
        for source in (*(it for it in MAKERS if it in drawn), *(it for it in drawn if it not in MAKERS)):
            own = Counter[str](name for name, pairs in split.splits.items() for pair in pairs if pair.made_by == source)
            per = self.more["llm"]["passages"] if source == WRITTEN else found.documents
            rows[source] = SourceRow(
                made=made[source],
                drawn=len(drawn[source]),
                kept=own.total(),
                share=round(own.total() / max(len(kept), 1), 4),
                per_document=round(made[source] / max(per, 1), 4),
                splits=dict(own),
                dropped={why: count for (name, why), count in self.dropped.items() if name == source},
            )
        test = Counter(made_by for _, made_by in {(pair.query, pair.made_by) for pair in split.splits["test"]})
        report: PairsReport = {
            "documents": found.documents,
            "passages": found.passages.offered,
            "ranked": len(found.passages),
            "rejected": len(self.documents.rejected),
            "pairs": len(kept),
            "splits": {name: len(pairs) for name, pairs in split.splits.items()},
            "split_by": split.by,
            "sources": rows,
            "test": dict(test.most_common()),
            "warnings": [*self.warnings, *self._warned(split, kept)],
        }
        return cast(PairsReport, {**report, **self.more})

    def _warned(self, split: SplitPairs, kept: list[MadePair]) -> list[str]:
        warnings = []
        if len(kept) < FEW_PAIRS:
            warnings.append(f"{len(kept)} pairs, fewer than {FEW_PAIRS}: bring more documents, or --llm URL")
        if split.by == "passage":
            warnings.append("few documents: the split is by passage, so train and test share documents")
        if any(source in split.tested for source in STAND_INS):
            warnings.append(
                "too few titles, headings and questions for a test: words drawn from the texts stand in for queries, "
                "which are less like those of users"
            )
        return warnings

    def _say(self, report: PairsReport) -> None:
        for source, row in report["sources"].items():
            why = "; ".join(f"{count:,} {reason}" for reason, count in row["dropped"].items())
            drawn = f", {row['drawn']:,} drawn" if row["drawn"] < row["made"] else ""
            say(f"  {source}: {row['made']:,} pairs{drawn}, {row['kept']:,} used" + (f" ({why})" if why else ""))
        for warning in report["warnings"]:
            say(f"  warning: {warning}")

    def _write(
        self, folder: Path, found: Streamed, split: SplitPairs, real: RealQueries, report: PairsReport
    ) -> PairsReport:
        write_jsonl(folder / PAIRS_FILE, _split_rows(split.splits))
        wanted = ({"_id": it.id, "text": it.text, "document": name} for name, cut in found.wanted.items() for it in cut)
        write_jsonl(folder / PASSAGES_FILE, {row["_id"]: row for row in (*found.passages, *wanted)}.values())
        write_jsonl(folder / REJECTED_FILE, map(asdict, self.documents.rejected))
        if real.alone:
            write_jsonl(folder / QUERIES_FILE, ({"text": query} for query in dict.fromkeys(real.alone)))
        if (self.work / LOG_FILE).is_file():
            shutil.copyfile(self.work / LOG_FILE, folder / LOG_FILE)
        return report


def _model(config: RunConfig) -> dict[str, Any]:
    """What vectors depend on."""
    use = {name: value for name, value in config.loading.items() if name not in config.machine}
    return {"model": config.base_model, **use}


def _needs_model(config: RunConfig) -> bool:
    """Whether something is encoded."""
    return "cluster" in config.pairs.pair_sources or config.endpoint.llm is not None


def _split_rows(splits: dict[Split, list[MadePair]]) -> Any:
    for split, pairs in splits.items():
        for pair in pairs:
            yield {**pair.row(), "split": split}


def _first(found: Streamed, count: int) -> list[tuple[str, str]]:
    """(document, text) of the first passages of the draw."""
    return [(row["document"], row["text"]) for row, _ in zip(found.passages, range(count), strict=False)]


def _rows(path: Path) -> list[dict[str, Any]]:
    return [line.value for line in iter_jsonl(path) if line.value is not None]
