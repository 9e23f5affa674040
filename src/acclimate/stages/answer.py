"""`answer`: retrieve from the run's index, let a language model answer from it, check what it cites."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from acclimate.configs import RunConfig
from acclimate.core.filter_language import parse_filter
from acclimate.data.texts import typed_text
from acclimate.errors import UsageError
from acclimate.formats.chat import ChatClient, Completion, Message
from acclimate.progress import say
from acclimate.retrieval.answers import AnswerReader, choose_passages, messages, refused, reply_of
from acclimate.retrieval.index.of_run import index_for, index_place, query_model, read_fusion, refusal_of
from acclimate.retrieval.index.pictures import among_texts
from acclimate.retrieval.index.records import Query
from acclimate.retrieval.rerank import rerank_hits
from acclimate.runs.opening import load_current
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task


class Wanted(NamedTuple):
    """Which documents a language model may read."""

    top: int = 8
    """How many."""
    filter: str | None = None
    """On metadata, see `core.filter_language`."""
    rerank: int | None = None
    """Put the first so many in order anew by a reranker."""
    reranker: str | None = None
    """A run with one, a folder, or a hub id; the run's own if None."""


def answer(
    run: Path,
    question: str,
    client: ChatClient,
    config: RunConfig,
    wanted: Wanted | None = None,
    on_text: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Answer a question from a run's index.

    Args:
        run: the run's folder; its adapter, if there is one, else its model, encodes the question.
        question: in any language.
        client: asks the language model.
        config: the run's model and machine, index, reranker; `context_tokens` and `answer_tokens`.
        wanted: which documents; the first eight if None.
        on_text: given the answer piece by piece while it is written; if None, it is asked for whole.

    Returns:
        What `retrieval.answers.reply_of` gives, and {"usage": {"prompt_tokens", "completion_tokens" (both as the
        endpoint counts), "context_tokens"}, "model" (the language model), "score" (cosine of the best document),
        "threshold" (no higher one is answered; None where none was chosen), "place", "reranker"}.

    Raises:
        UsageError: the question is empty, a setting that cannot be, or an index of another space.
        StorageError: there is no index, or no reranker.
        ChatError: the language model cannot be reached, or fails.
    """
    wanted, question = wanted or Wanted(), typed_text(question)
    _check(question, wanted)
    passed = None if wanted.filter is None else parse_filter(wanted.filter)
    task = one_task(run, config)
    place = index_place(task)
    encoder = load_current(RunFolder(run).adapter, config.model, **task.config.loading)
    vector = encoder.encode([question], "query")[0]
    with index_for(place, encoder, run) as index:
        fusion, choice = read_fusion(task, index.space)
        passed = among_texts(index, passed)  # the name of a picture is no source
        nearest = index.search(Query(None, vector, "dense", 1, passed))
        hits = index.search(Query(question, vector, "hybrid", wanted.rerank or wanted.top, passed, fusion))
    rule, score = refusal_of(choice), nearest[0].score if nearest else None
    if rule is not None and rule.model != query_model(encoder):
        say(f"warning: below which score nothing is answered was chosen for another model: evaluate {run} --index")
        rule = None
    facts: dict[str, Any] = {
        "model": client.model,
        "score": score,
        "threshold": None if rule is None else rule.threshold,
        "place": place,
        "reranker": None,
    }
    if score is None or (rule is not None and rule.refuses(score)):
        return {**reply_of(refused(question)), "usage": _usage(Completion(""), 0), **facts}
    if wanted.rerank is not None:
        name, machine = wanted.reranker or str(run), {"device": config.device, "dtype": config.reranker_dtype}
        facts["reranker"], hits = rerank_hits(name, config.rerank, question, hits, **machine)
    passages = choose_passages(((hit.id, hit.text) for hit in hits[: wanted.top]), config.answer.context_tokens)
    reader = AnswerReader(question, passages)
    said = _asked(client, messages(question, passages), config.answer.answer_tokens, reader, on_text)
    return {**reply_of(reader.answer), "usage": _usage(said, sum(one.tokens for one in passages)), **facts}


def _check(question: str, wanted: Wanted) -> None:
    if not question.strip():
        raise UsageError("the question is empty", fix="Give some words to ask.")
    if wanted.top < 1:
        raise UsageError(f"top = {wanted.top}", possible="1 or more")
    if wanted.rerank is not None and wanted.rerank < wanted.top:
        raise UsageError(f"rerank = {wanted.rerank}, and top = {wanted.top}", possible=f"{wanted.top} or more")
    if wanted.reranker is not None and wanted.rerank is None:
        raise UsageError("a reranker is named, and nothing is to be reranked", fix="Say how many: --rerank 50")


def _asked(
    client: ChatClient,
    chat: list[Message],
    max_tokens: int,
    reader: AnswerReader,
    on_text: Callable[[str], None] | None,
) -> Completion:
    """Let the reader read what the model says; of the result only the counts are used."""
    if on_text is None:
        said = client.complete(chat, max_tokens)
        reader.feed(said.text)
        reader.end()
        return said
    with closing(client.stream(chat, max_tokens)) as pieces:
        for piece in pieces:
            on_text(reader.feed(piece))
        on_text(reader.end())
    return Completion("", pieces.prompt_tokens, pieces.completion_tokens)


def _usage(said: Completion, context_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": said.completion_tokens,
        "context_tokens": context_tokens,
    }
