"""Queries written by a language model: asked once for each passage, whatever interrupts it.

Every answer is appended to a log before the next step, so a second start asks only for what is missing.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from acclimate.core.same_text import same_text_key
from acclimate.data.weak import UNIT
from acclimate.files import hash_text, iter_jsonl, storage_errors
from acclimate.formats.chat import ChatError, Completion, Message
from acclimate.pairing import templates
from acclimate.pairing.made_pair import MadePair
from acclimate.progress import progress

COPIED_UNITS = 8
"""A query with so many words of the passage in a row copies it."""
WHOLE_UNITS = 5
"""So does one of so many words that stands in the passage as it is; shorter ones are terms."""
TOLERATED = 0.1
"""Share of requests that the endpoint may refuse for what is in them before it is taken to refuse all."""
MIN_TOLERATED = 5
OF_THIS_REQUEST = (400, 413, 422, None)
"""States that say that one request is refused (too long, or filtered), or its answer is none: others may succeed."""
LOG_FILE = "answers.jsonl"


class Asked(Protocol):
    """What answers: `formats.chat.ChatClient`."""

    @property
    def model(self) -> str: ...

    def complete(self, messages: Sequence[Message], max_tokens: int, temperature: float = 0.0) -> Completion:
        """Answer a conversation."""
        ...


@dataclass
class Usage:
    """What the endpoint was asked, and what it took."""

    requests: int = 0
    """Made in this start."""
    from_log: int = 0
    """Answered in an earlier start."""
    refused: int = 0
    prompt_tokens: int = 0
    """Counted over all answers that are used, those of earlier starts too."""
    completion_tokens: int = 0

    def report(self, prices: Sequence[float]) -> dict[str, Any]:
        """As a part of a report, with the cost where the prices are known."""
        found: dict[str, Any] = dict(vars(self))
        if prices:
            tokens = (self.prompt_tokens, self.completion_tokens)
            found["cost"] = round(sum(price * count / 1e6 for price, count in zip(prices, tokens, strict=True)), 6)
        return found


@dataclass
class Endpoint:
    """A language model, the log of what it has answered, and the count of both.

    Attributes:
        client: is asked.
        log: a JSONL file of answers, made if it is not there.
        parallel: requests under way at the same time.
    """

    client: Asked
    log: Path
    parallel: int
    usage: Usage = field(default_factory=Usage)

    def answers(self, asked: Sequence[Sequence[Message]], max_tokens: int, label: str) -> list[str | None]:
        """Ask all of it, in any order.

        Args:
            asked: the conversations.
            max_tokens: of each answer.
            label: what the progress bar says.

        Returns:
            An answer for each; None where the endpoint refuses that one request.

        Raises:
            ChatError: it cannot be reached, or refuses all; what was answered before is in the log.
        """
        keys = [hash_text(self.client.model, str(max_tokens), json.dumps(list(map(dict, it)))) for it in asked]
        known = self._logged()
        missing = dict.fromkeys(key for key in keys if key not in known)
        by_key = dict(zip(keys, asked, strict=True))
        self.usage.from_log += len(set(keys) - missing.keys())
        with (
            storage_errors(self.log),
            self.log.open("a", encoding="utf-8") as log,
            progress(label, len(by_key), "requests", len(by_key) - len(missing)) as advance,
        ):
            log.write("\n" * self._is_cut())
            for key, completion in self._asked({key: by_key[key] for key in missing}, max_tokens):
                known[key] = completion
                log.write(json.dumps({"key": key, **_row(completion)}, ensure_ascii=False) + "\n")
                log.flush()
                advance()
        found = [known.get(key) for key in keys]
        for completion in {key: known[key] for key in keys if key in known}.values():
            self.usage.prompt_tokens += completion.prompt_tokens
            self.usage.completion_tokens += completion.completion_tokens
        return [None if completion is None else completion.text for completion in found]

    def _asked(self, missing: Mapping[str, Sequence[Message]], max_tokens: int) -> Iterator[tuple[str, Completion]]:
        """The answers as they come. At an error nothing more is asked, and what is under way is waited for."""
        todo = iter(missing.items())
        with ThreadPoolExecutor(self.parallel) as threads:
            under_way: dict[Future[Completion], str] = {}
            failure: ChatError | None = None
            while True:
                if failure is None:
                    for key, messages in islice(todo, self.parallel - len(under_way)):
                        under_way[threads.submit(self.client.complete, messages, max_tokens)] = key
                if not under_way:
                    break
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    key = under_way.pop(future)
                    self.usage.requests += 1
                    try:
                        completion = future.result()
                    except ChatError as error:
                        failure = failure or self._refused(error, len(missing))
                    else:
                        yield key, completion
        if failure is not None:
            raise failure

    def _refused(self, error: ChatError, asked: int) -> ChatError | None:
        """The error, unless it is about one request alone and there were few of them."""
        self.usage.refused += 1
        alone = error.status in OF_THIS_REQUEST and "cannot be reached" not in error.found
        return None if alone and self.usage.refused <= max(MIN_TOLERATED, TOLERATED * asked) else error

    def _is_cut(self) -> bool:
        """Whether the log ends within a line, as a kill leaves it: what is appended must not be lost with it."""
        if not self.log.is_file() or not self.log.stat().st_size:
            return False
        with self.log.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) != b"\n"

    def _logged(self) -> dict[str, Completion]:
        """The answers of earlier starts; the last line may be half written."""
        if not self.log.is_file() or not self.log.stat().st_size:
            return {}
        rows = (line.value for line in iter_jsonl(self.log) if line.value is not None)
        return {row["key"]: Completion(row["text"], row["prompt_tokens"], row["completion_tokens"]) for row in rows}


def _row(completion: Completion) -> dict[str, Any]:
    return {
        "text": completion.text,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
    }


def written_queries(
    passages: Sequence[tuple[str, str]], styles: Sequence[str], endpoint: Endpoint
) -> tuple[list[MadePair], Counter[str]]:
    """Let the model write queries for passages, one of each style; copies and repetitions are dropped.

    Args:
        passages: (document, text) of each.
        styles: names in `templates.STYLES`.
        endpoint: is asked, once for each passage.

    Returns:
        The pairs, and why others were dropped.
    """
    asked = [templates.ask_for_queries(text, styles) for _, text in passages]
    answers = endpoint.answers(asked, templates.ANSWER_TOKENS * len(styles) + 20, "write queries")
    pairs: list[MadePair] = []
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    for (document, text), answer in zip(passages, answers, strict=True):
        if answer is None:
            dropped["refused by the endpoint"] += len(styles)
            continue
        found = templates.queries_in(answer, styles)
        if missing := len(styles) - len(found):
            dropped["not in the answer"] += missing
        for style, query in found:
            key = same_text_key(query)
            if key in seen:
                dropped["repeated"] += 1
            elif copies(query, text):
                dropped["copies the passage"] += 1
            else:
                seen.add(key)
                pairs.append(MadePair(query, text, "written", document, style=style))
    return pairs, dropped


def copies(query: str, passage: str) -> bool:
    """Whether a query repeats a passage's words at length."""
    asked = [unit.casefold() for unit in UNIT.findall(query)]
    told = f" {' '.join(unit.casefold() for unit in UNIT.findall(passage))} "
    length = min(len(asked), COPIED_UNITS)
    if length < WHOLE_UNITS:
        return False
    return any(f" {' '.join(asked[start : start + length])} " in told for start in range(len(asked) - length + 1))


def judged(pairs: Sequence[MadePair], endpoint: Endpoint) -> tuple[list[MadePair], int]:
    """The pairs whose passage answers the query, as the model says, and how many it does not."""
    asked = [templates.ask_for_judgement(pair.query, pair.positive) for pair in pairs]
    answers = endpoint.answers(asked, 8, "judge queries")
    kept = [
        pair for pair, answer in zip(pairs, answers, strict=True) if answer is not None and templates.says_yes(answer)
    ]
    return kept, len(pairs) - len(kept)
