"""Settings of answers: `answer`, and the service's."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.configs.checks import check_at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerConfig:
    """Answers out of an index, by a language model that reads what was found."""

    context_tokens: int = 3000
    """Most tokens of the passages that the language model reads for an answer, estimated by their characters."""
    answer_tokens: int = 1024
    """Longest answer, in tokens; what a model thinks before counts too."""

    def __post_init__(self) -> None:
        check_at_least("context_tokens", self.context_tokens, 50)
        check_at_least("answer_tokens", self.answer_tokens, 1)
