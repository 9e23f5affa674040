"""Long texts -> the chunks that one encoder turns into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from acclimate.core.chunking import Span, chunk_spans
from acclimate.errors import UsageError
from acclimate.models.tokens import read_template

if TYPE_CHECKING:
    from acclimate.models.text_encoder import TextEncoder


class Passages:
    """Cuts documents into chunks of so many tokens of an encoder's own tokenizer.

    Attributes:
        max_tokens: the most tokens per chunk, without prompt and special tokens.
        overlap: the most tokens that a chunk shares with the one before.
    """

    def __init__(self, encoder: TextEncoder, max_tokens: int, overlap: int) -> None:
        """Make sure that such a chunk fits into the encoder.

        Raises:
            UsageError: it does not: prompt, chunk and special tokens are more than `max_tokens` of the encoder.
        """
        self.max_tokens, self.overlap = max_tokens, overlap
        self._backend: Any = encoder.tokenizer.backend_tokenizer
        prompt = encoder.use.prompts.prompt("document", encoder.task)
        room = encoder.use.max_tokens - len(read_template(encoder.tokenizer)) - self._counts([prompt])[0]
        if max_tokens > room:
            raise UsageError(
                f"chunk_tokens = {max_tokens}; beside prompt and special tokens the model reads no more than {room}",
                possible=f"up to {room}",
            )

    def cut(self, texts: Sequence[str]) -> list[list[Span]]:
        """Return each text's chunks, in order: `text[start:end]` has at most `max_tokens` tokens."""
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [self._fitting(text, one.offsets) for text, one in zip(texts, encodings, strict=True)]

    def _fitting(self, text: str, tokens: Sequence[tuple[int, int]]) -> list[Span]:
        """The chunks of one text. Cut out, a chunk can have a token more than in its place, so they are counted."""
        room = self.max_tokens
        while True:
            spans = chunk_spans(text, tokens, room, min(self.overlap, room - 1))
            excess = max(self._counts([text[start:end] for start, end in spans]), default=0) - self.max_tokens
            if excess <= 0 or room == 1:
                return spans
            room = max(1, room - excess)

    def _counts(self, texts: Sequence[str]) -> list[int]:
        return [len(one.ids) for one in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]
