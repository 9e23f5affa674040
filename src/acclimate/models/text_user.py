"""TextUser: texts -> tokens, with their prompts, cut: what all encoders share, whatever computes their vectors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

from acclimate.models.reading import Reading, read_texts
from acclimate.models.tokens import TokenCache, Tokens, tokenise
from acclimate.text_use import TextUse
from acclimate.types import Role


class TextUser:
    """A tokenizer, and how texts are used.

    Attributes:
        tokenizer: a fast tokenizer.
        use: how texts become vectors: prompts, pooling, dimensions, limit.
        task: whose prompts are used where no other task is named; None is the default one. See `for_task`.
        token_cache: keeps the tokens of large inputs on disk; None keeps them in memory.
    """

    def __init__(self, tokenizer: Any, use: TextUse, token_cache: TokenCache | None = None) -> None:
        self.tokenizer, self.use, self.token_cache = tokenizer, use, token_cache
        self.task: str | None = None

    def tokenise(self, texts: Sequence[str], role: Role = "document", task: str | None = None) -> Tokens:
        """Tokens of the texts with their prompt before them, cut to `max_tokens`."""
        prompt = self.use.prompts.prompt(role, task or self.task)
        prompted = [prompt + text for text in texts] if prompt else texts
        if self.token_cache is not None:
            return self.token_cache.tokenise(self.tokenizer, prompted, self.use.max_tokens)
        return tokenise(self.tokenizer, prompted, self.use.max_tokens)

    def reading(self, texts: Sequence[str], role: Role = "document") -> Reading:
        """Find out what of texts reaches the model: unknown tokens, and texts that it cannot tell apart."""
        return read_texts(self.tokenizer, texts, self.use.max_tokens, self.use.prompts.prompt(role, self.task))

    def for_task(self, task: str | None) -> Self:
        """The same encoder, weights and all, with the prompts of another task; None is the default one.

        Raises:
            UsageError: its prompts know no such task.
        """
        self.use.prompts.prompt("query", task)
        view = copy.copy(self)
        view.task = task
        return view
