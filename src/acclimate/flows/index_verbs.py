"""The commands about an index as Python functions: `from acclimate import index, search`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from acclimate.configs import check_settings
from acclimate.errors import StorageError, UsageError
from acclimate.flows.settings import Config, configured, measuring
from acclimate.flows.verbs import at_work_in
from acclimate.ownership import called
from acclimate.report.result import Result
from acclimate.runs.run_folder import RunFolder, is_run

SearchMode: TypeAlias = Literal["dense", "lexical", "hybrid"]
RouteMode: TypeAlias = Literal["auto", "mix", "fuse"]


def index(
    run: str | Path,
    corpora: str | Path | Sequence[str | Path] = (),
    *,
    delete: str | Path | None = None,
    images: bool = False,
    config: Config = None,
    **settings: Any,
) -> Result:
    """Write documents into a run's index, in place of those with the same ids; what has not changed is left alone.

    Args:
        run: the run's folder; its adapter, if there is one, else its model, gives the vectors.
        corpora: JSONL, CSV, TSV or parquet files, BEIR folders, folders of .txt, .md, .html, .pdf and .docx files; the
            run's own corpus if none is given. With `images`, pictures: what `adapt` takes, image files, folders of
            these; the run's own images if none is given.
        delete: a file of ids, one a line, that are removed before anything is written.
        images: write pictures, by the run's projection (`adapt` with `image_model`).
        config: see `Config`.
        settings: such as `chunk_tokens=200`.

    Returns:
        what was done: "documents" in the index, "read", "encoded", "unchanged", "rejected" and more.
    """
    folder = Path(run)
    sources = [Path(name) for name in ([corpora] if isinstance(corpora, str | Path) else corpora)]
    if images:
        if delete is not None:
            raise UsageError("delete and images exclude each other", fix=f"First: acclimate index {run} --delete FILE")
        return _index_pictures(folder, sources, config, settings)
    check_settings("index RUN CORPUS" if sources or delete else "index RUN", settings)
    effective = measuring("index", settings, config, folder)
    if not sources and delete is None and not is_run(folder):
        raise StorageError(f"{run} holds no dataset", fix=f"Name documents: acclimate index {run} CORPUS …")
    from acclimate.flows.record import stage_of
    from acclimate.stages.index import index as stage

    with stage_of(folder, effective, called("index", run, *sources, delete=delete, config=config, **settings)):
        return Result(stage(folder, sources, None if delete is None else Path(delete), effective))


def _index_pictures(run: Path, sources: Sequence[Path], config: Config, settings: Mapping[str, Any]) -> Result:
    check_settings("index RUN --images", settings)
    effective = configured("index", settings, config, run)
    from acclimate.flows.record import stage_of
    from acclimate.stages.index_pictures import index_pictures as stage

    with stage_of(run, effective, called("index", run, *sources, images=True, config=config, **settings)):
        return Result(stage(run, sources, effective))


def index_info(run: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Describe a run's index: where it is, how many documents it has, their space, how its rankings are fused."""
    check_settings("index RUN --info", settings)
    from acclimate.stages.index_care import index_info as stage

    return Result(stage(Path(run), configured("index", settings, config, Path(run))))


def verify_index(run: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Look for damage in a run's index, encode a sample of it again; "problems" is empty where all is well."""
    check_settings("index RUN --reencode", settings)
    from acclimate.stages.index_care import verify_index as stage

    return Result(stage(Path(run), measuring("index", settings, config, Path(run))))


def rebuild_index(run: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Make the search structures of a run's index anew from its documents; nothing is encoded."""
    check_settings("index RUN --info", settings)
    from acclimate.stages.index_care import rebuild_index as stage

    return Result(stage(Path(run), configured("index", settings, config, Path(run))))


def reencode_index(run: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Encode all that a run's index holds again, with the run's present model: after a training."""
    check_settings("index RUN --reencode", settings)
    effective = measuring("index", settings, config, Path(run))
    from acclimate.flows.record import stage_of
    from acclimate.stages.index_care import reencode_index as stage

    with stage_of(Path(run), effective, called("reencode_index", run, config=config, **settings)):
        return Result(stage(Path(run), effective))


def export_index(run: str | Path, out: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Write the documents of a run's index as JSONL, which `index` reads."""
    check_settings("index RUN --info", settings)
    from acclimate.stages.index_care import export_index as stage

    return Result(stage(Path(run), Path(out), configured("index", settings, config, Path(run))))


def move_index(run: str | Path, to: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Move a run's index over, without encoding anything again; after an interruption the same call goes on.

    Args:
        run: the run's folder.
        to: a folder, qdrant://host:6333/collection, or postgresql://host/database?table=name.
        config: see `Config`.
        settings: `index_at`: the index that is moved, if it is not the run's folder.

    Returns:
        "place", "documents", "written", and how alike both answer: "sampled", "recall".
    """
    check_settings("index RUN --info", settings)
    from acclimate.stages.move_index import move_index as stage

    return Result(stage(Path(run), str(to), configured("index", settings, config, Path(run))))


def adopt_index(run: str | Path, place: str, *, config: Config = None, **settings: Any) -> Result:
    """Record that an index which somebody else made and writes has vectors of a run's model, if it has.

    Args:
        run: the run's folder.
        place: qdrant://host:6333/collection, or postgresql://host/database?table=name.
        config: see `Config`.
        settings: `text_field` and `vector_field`, which say where texts and vectors are, and those of the model.

    Returns:
        "place", "documents", "space", and the cosines of a sample: "sampled", "median_cosine", "least_cosine".
    """
    check_settings("index RUN --adopt", settings)
    from acclimate.stages.adopt_index import adopt_index as stage

    return Result(stage(Path(run), place, measuring("index", settings, config, Path(run))))


def search(
    run: str | Path,
    query: str,
    *,
    top: int = 5,
    mode: SearchMode | None = None,
    filter: str | None = None,
    rerank: int | None = None,
    reranker: str | Path | None = None,
    compare: bool = False,
    adapter: RouteMode | None = None,
    config: Config = None,
    **settings: Any,
) -> Result:
    """Find the first documents for a query: through the run's index, or, without one, by base and adapted.

    Args:
        run: the run's folder.
        query: what to search for.
        top: how many documents.
        mode: dense, lexical or hybrid (if None): by meaning, by words, by both.
        filter: on metadata, such as `year >= 2020 and crop in ("rice", "maize")`.
        rerank: put the first so many in order anew by a reranker.
        reranker: a run with one, a folder, or a hub id; the run's own if None.
        compare: search the run's corpus by base and adapted even where there is an index.
        adapter: auto, mix (if None) or fuse: how the run's adapter and those of `experts`, further runs, answer.
        config: see `Config`.
        settings: such as `device="cpu"`.

    Returns:
        Through an index {"query", "mode", "hits": [{"id", "score", "text", "metadata"}] and more}; else
        {"query", "base": [{"id", "text", "score"}], "adapted": [the same]}; best first.
    """
    _check_search(settings, mode, adapter, reranks=rerank is not None)
    effective = measuring("search", settings, config, Path(run))
    from acclimate.retrieval.index.of_run import has_index
    from acclimate.retrieval.routing import check_route_mode
    from acclimate.runs.tasks import one_task
    from acclimate.stages import search as stage

    given = any(one is not None for one in (mode, filter, rerank, reranker))
    through_index = given or bool(effective.route.experts)
    if compare and through_index:
        fix = "Leave mode, filter, rerank, reranker, experts out."
        raise UsageError("compare is a search without the index", fix=fix)
    if through_index or (not compare and has_index(one_task(Path(run), effective))):
        return Result(
            stage.search_index(
                Path(run),
                query,
                top,
                effective,
                mode=mode or "hybrid",
                filter=filter,
                rerank_first=rerank,
                reranker=None if reranker is None else str(reranker),
                adapter=check_route_mode(adapter or "mix"),
            )
        )
    return Result(stage.search(Path(run), query, top, effective))


def _check_search(
    settings: Mapping[str, Any], mode: SearchMode | None, adapter: RouteMode | None, *, reranks: bool
) -> None:
    """Refuse what cannot be, and what a search of this kind would ignore."""
    if mode not in (None, "dense", "lexical", "hybrid"):
        raise UsageError(f"mode = {mode!r}", possible="dense, lexical, hybrid")
    if settings.get("experts"):
        check_settings("search --experts", settings)
    elif adapter is not None:
        raise UsageError(f"adapter = {adapter!r}, and no experts are named", fix="Name further runs: --experts RUN")
    elif not reranks:
        check_settings("search without --rerank", settings)


def answer(
    run: str | Path,
    question: str,
    *,
    top: int = 8,
    filter: str | None = None,
    rerank: int | None = None,
    reranker: str | Path | None = None,
    on_text: Callable[[str], None] | None = None,
    config: Config = None,
    **settings: Any,
) -> Result:
    """Answer a question out of a run's index, by a language model behind an OpenAI-compatible endpoint.

    Args:
        run: the run's folder; it needs an index.
        question: in any language.
        top: how many documents the language model may read.
        filter: on metadata, see `search`.
        rerank: put the first so many in order anew by a reranker.
        reranker: a run with one, a folder, or a hub id; the run's own if None.
        on_text: given the answer piece by piece while it is written; if None, it is asked for as a whole.
        config: see `Config`.
        settings: such as `llm="http://localhost:8001/v1"` and `llm_model="Qwen3-8B"`. These two are never taken from
            the run's own `config.toml`: whoever wrote it would get the documents and the key.

    Returns:
        {"answer", "answered", "citations": [{"id", "number", "text"}], "struck", "usage", "model", "score"} and more.
    """
    if rerank is None:
        check_settings("answer without --rerank", settings)
    own = {name: value for name, value in settings.items() if name in ("llm", "llm_model")}
    asked = configured("answer", own, config).endpoint
    if asked.llm is None or asked.llm_model is None:
        raise UsageError(
            "no language model is named", fix="Give the address of its endpoint and its name: --llm URL --llm-model M."
        )
    effective = measuring("answer", settings, config, Path(run))
    from acclimate.formats.chat import ChatClient
    from acclimate.stages.answer import Wanted
    from acclimate.stages.answer import answer as stage

    wanted = Wanted(top, filter, rerank, None if reranker is None else str(reranker))
    with ChatClient(asked.llm, asked.llm_model) as client:
        return Result(stage(Path(run), question, client, effective, wanted, on_text))


def evaluate_index(run: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Measure dense, lexical and hybrid search through a run's index on the test split; write `run/index_evaluation`.

    The run's report gets that part. The fusion of the hybrid mode is chosen on the dev split, and kept for `search`.

    Args:
        run: the run's folder, with a dataset and an index that holds its corpus.
        config: see `Config`.
        settings: such as `sign_flips=5000`.

    Returns:
        "modes", "delta" (differences to dense, with intervals), "exact_recall", "fusion" and more.
    """
    check_settings("evaluate RUN --index", settings)
    folder = Path(run)
    effective = measuring("evaluate", settings, config, folder)
    from acclimate.stages.evaluate_index import evaluate_index as stage

    with at_work_in(folder, effective, called("evaluate_index", run, config=config, **settings)):
        return Result(stage(folder, effective), RunFolder(folder).index_evaluation)


def route(runs: Sequence[str | Path], *, config: Config = None, **settings: Any) -> Result:
    """Measure the routing of queries between the adapters of several runs, over one corpus of all their data.

    Args:
        runs: two or more, each with its data and an adapter over the same base.
        config: see `Config`.
        settings: such as `outside=("other/beir",)`, data that no run was trained on.

    Returns:
        see `acclimate.stages.route`.
    """
    effective = configured("route", settings, config)
    from acclimate.stages.route import route as stage

    return Result(stage([Path(run) for run in runs], effective))
