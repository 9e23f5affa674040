"""The two kinds of rerankers: how a pair becomes tokens, and how hidden states become its score.

A cross-encoder (BERT family) reads `[CLS] query [SEP] text [SEP]` and has a classification head of one label. A yes/no
reranker (Qwen3-Reranker) is a causal language model asked, in its chat template, whether the text answers the query:
the score is logit("yes") - logit("no") at the last position, whose sigmoid is the published score.

Shapes: N pairs, T tokens of all of them, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from acclimate.errors import DataError, ModelError, UsageError
from acclimate.formats.families import WEB_SEARCH
from acclimate.formats.reranker_view import YES_NO_BODY, YES_NO_PREFIX, YES_NO_SUFFIX
from acclimate.models.inputs import can_pack
from acclimate.models.tokens import Tokens, longest_first, read_template

YES_NO_MAX_TOKENS = 8192
"""The model card's `max_length`, where nothing else is asked for."""
MIN_BODY_TOKENS = 8
"""Room for query and text that a limit must leave."""


@dataclass(frozen=True)
class Pairs:
    """Token ids of N pairs, and how many of each come before the text (BERT's token type 0), int64 [N]."""

    tokens: Tokens
    first: NDArray[np.int64]


class Kind(Protocol):
    """What differs between rerankers."""

    task: ClassVar[str]
    """PEFT's name of the task."""
    max_tokens: int

    @property
    def instruction(self) -> str | None: ...
    def head(self, model: Any, /) -> dict[str, nn.Parameter]: ...
    def packs(self, config: dict[str, Any]) -> bool: ...
    def tokenise(self, queries: Sequence[str], texts: Sequence[str]) -> Pairs: ...
    def score_packed(self, model: Any, hidden_TD: Tensor, lengths_N: Tensor) -> Tensor: ...
    def score_padded(self, model: Any, inputs: dict[str, Any]) -> Tensor: ...


class CrossEncoder:
    """A sequence-classification model with one label; where a pair is too long, the longer side is cut first.

    Args:
        tokenizer: its fast tokenizer.
        max_tokens: query, text and special tokens together.
    """

    task: ClassVar[str] = "SEQ_CLS"

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        least = tokenizer.backend_tokenizer.num_special_tokens_to_add(True) + 2
        if max_tokens < least:
            raise UsageError(f"a limit of {max_tokens} tokens for a pair", possible=f"{least} or more")
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.instruction: str | None = None

    def head(self, model: Any) -> dict[str, nn.Parameter]:
        """What trains beside LoRA: path -> parameter."""
        body = f"{model.base_model_prefix}."
        return {name: parameter for name, parameter in model.named_parameters() if not name.startswith(body)}

    def packs(self, config: dict[str, Any]) -> bool:
        """Whether its pairs can be packed."""
        return config.get("model_type") in HEADS and can_pack(config)

    def tokenise(self, queries: Sequence[str], texts: Sequence[str]) -> Pairs:
        """Tokens of N pairs by the tokenizer's own template."""
        template = read_template(self.tokenizer, pair=True)
        first, second = (_encode(self.tokenizer, side) for side in (queries, texts))
        of_first, of_second = (np.array([len(ids) for ids in side], np.int64) for side in (first, second))
        kept = longest_first(of_first, of_second, self.max_tokens - len(template))
        tokens = _tokens(
            [*template.before, *query[:of_query], *template.between, *text[:of_text], *template.after]
            for query, text, of_query, of_text in zip(first, second, *kept.tolist(), strict=True)
        )
        if "token_type_ids" not in self.tokenizer.model_input_names:
            return Pairs(tokens, tokens.lengths)
        return Pairs(tokens, template.zeros + kept[np.array(template.types) == 0].sum(0))

    def score_packed(self, model: Any, hidden_TD: Tensor, lengths_N: Tensor) -> Tensor:
        """Logits [N] from the hidden states of each pair's first token."""
        first_ND = hidden_TD[lengths_N.cumsum(0) - lengths_N]
        logits_N1: Tensor = HEADS[model.config.model_type](model, first_ND)
        return logits_N1[:, 0].float()

    def score_padded(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Logits [N] by the model's own forward pass."""
        logits_N1: Tensor = model(**inputs).logits
        return logits_N1[:, 0].float()


class YesNo:
    """A causal language model that answers yes or no. Only query and text are cut, never the template around them.

    Args:
        tokenizer: its fast tokenizer.
        max_tokens: the whole prompt.
        instruction: what makes a text relevant; the model card's web search if not given.
    """

    task: ClassVar[str] = "CAUSAL_LM"

    def __init__(self, tokenizer: Any, max_tokens: int, instruction: str | None = None) -> None:
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.instruction: str = instruction or WEB_SEARCH
        self.yes, self.no = (_only_token(tokenizer, word) for word in ("yes", "no"))
        for mark in ("<|im_start|>", "<|im_end|>"):
            _only_token(tokenizer, mark)
        self._prefix, self._suffix = (self._plain_ids(part) for part in (YES_NO_PREFIX, YES_NO_SUFFIX))
        empty = self._plain_ids(self._body("", ""))
        template = len(self._prefix) + len(empty) + len(self._suffix)
        if max_tokens < template + MIN_BODY_TOKENS:
            raise UsageError(
                f"a limit of {max_tokens} tokens, of which the template and its instruction take {template}",
                possible=f"{template + MIN_BODY_TOKENS} or more",
            )

    def head(self, _model: Any) -> dict[str, nn.Parameter]:
        """Nothing trains beside LoRA: the head is the whole vocabulary's."""
        return {}

    def packs(self, config: dict[str, Any]) -> bool:
        """Whether its pairs can be packed."""
        return can_pack(config)

    def tokenise(self, queries: Sequence[str], texts: Sequence[str]) -> Pairs:
        """Prefix, body cut at its end, suffix: of N pairs."""
        room = self.max_tokens - len(self._prefix) - len(self._suffix)
        bodies = [self._body(query, text) for query, text in zip(queries, texts, strict=True)]
        tokens = _tokens([*self._prefix, *ids[:room], *self._suffix] for ids in _encode(self.tokenizer, bodies))
        return Pairs(tokens, tokens.lengths)

    def score_packed(self, model: Any, hidden_TD: Tensor, lengths_N: Tensor) -> Tensor:
        """logit(yes) - logit(no) [N]: two rows of the head at each pair's last position, in float32."""
        return self._head(model, hidden_TD[lengths_N.cumsum(0) - 1])

    def score_padded(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """The same from a batch padded at the right."""
        last_N = inputs["attention_mask"].sum(1) - 1
        hidden_NLD = model.base_model(**inputs).last_hidden_state
        return self._head(model, hidden_NLD[torch.arange(len(last_N), device=last_N.device), last_N])

    def _head(self, model: Any, last_ND: Tensor) -> Tensor:
        weight_2D = model.get_output_embeddings().weight[[self.yes, self.no]]
        with torch.autocast(last_ND.device.type, enabled=False):
            logits_N2 = functional.linear(last_ND.float(), weight_2D.float())
        return logits_N2[:, 0] - logits_N2[:, 1]

    def _body(self, query: str, text: str) -> str:
        return YES_NO_BODY.format(instruction=self.instruction, query=query, text=text)

    def _plain_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids


def _bert_head(model: Any, first_ND: Tensor) -> Tensor:
    logits: Tensor = model.classifier(model.bert.pooler(first_ND[:, None]))
    return logits


def _first_token_head(model: Any, first_ND: Tensor) -> Tensor:
    logits: Tensor = model.classifier(first_ND[:, None])
    return logits


def _distilbert_head(model: Any, first_ND: Tensor) -> Tensor:
    logits: Tensor = model.classifier(functional.relu(model.pre_classifier(first_ND)))
    return logits


HEADS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "bert": _bert_head,
    "roberta": _first_token_head,
    "xlm-roberta": _first_token_head,
    "camembert": _first_token_head,
    "electra": _first_token_head,
    "distilbert": _distilbert_head,
}
"""Architecture -> its classification head on the hidden states [N, D] of the first tokens (dropout is 0)."""


def _only_token(tokenizer: Any, word: str) -> int:
    ids = tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ModelError(
            f"the tokenizer makes {len(ids)} tokens of {word!r}, so this causal model is no reranker that answers "
            "yes or no",
            possible="Qwen3-Reranker, or a model with its tokenizer; a sequence-classification model with one label",
        )
    return int(ids[0])


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, without special tokens, uncut; a repeated text is tokenised once."""
    try:
        unique = list(dict.fromkeys(texts))
        encoded = tokenizer.backend_tokenizer.encode_batch_fast(unique, add_special_tokens=False)
    except (TypeError, UnicodeEncodeError):
        raise DataError("a query or text is no valid Unicode text (half of a surrogate pair)") from None
    ids_of = {text: encoding.ids for text, encoding in zip(unique, encoded, strict=True)}
    return [ids_of[text] for text in texts]


def _tokens(rows: Iterable[Sequence[int]]) -> Tokens:
    arrays = [np.asarray(row, np.int32) for row in rows]
    lengths = [len(row) for row in arrays]
    return Tokens(np.concatenate(arrays) if arrays else np.empty(0, np.int32), np.cumsum([0, *lengths], dtype=np.int64))
