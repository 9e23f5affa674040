"""The texts of an InfoNCE step: its rows, their candidates, and which candidates are no negatives.

Legend: N training rows, U distinct queries of the batch, M distinct documents, D vector size.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from acclimate.configs import ObjectiveConfig
from acclimate.core.losses import block_cosines
from acclimate.core.negatives import identity_mask, margin_mask, own_mask, related_mask
from acclimate.core.same_text import text_id
from acclimate.models.devices import to_device
from acclimate.types import Block, Example


class Relations:
    """Which anchors and positives belong together, over the whole training set and not only a batch.

    Texts stand for all that are the same (`core.same_text`): each is known by its id, which is computed once.

    Args:
        examples: of the training.
        own: (query, the document that is this query under the same id), where the corpus holds the queries: such a
            document is no negative of its query, though it may be another one's positive.
    """

    def __init__(self, examples: Iterable[Example], own: Iterable[tuple[str, str]] = ()) -> None:
        self._ids: dict[str, int] = {}
        self.positives: dict[Hashable, set[int]] = {}
        self.anchors: dict[Hashable, set[int]] = {}
        for pair in chain(((example.anchor, example.positive) for example in examples), own):
            anchor, positive = self.ids(pair)
            self.positives.setdefault(anchor, set()).add(positive)
            self.anchors.setdefault(positive, set()).add(anchor)

    def ids(self, texts: Iterable[str]) -> list[int]:
        """Look up what each text shares with all that are the same."""
        found = []
        for text in texts:
            if (known := self._ids.get(text)) is None:
                known = self._ids[text] = text_id(text)
            found.append(known)
        return found

    def query_keys(self, texts: Iterable[str]) -> list[set[int]]:
        """The keys of queries for `related_mask`: each one's text and its positives."""
        return [{known} | self.positives.get(known, set()) for known in self.ids(texts)]

    def document_keys(self, texts: Iterable[str]) -> list[set[int]]:
        """The keys of documents for `related_mask`: each one's text and its anchors."""
        return [{known} | self.anchors.get(known, set()) for known in self.ids(texts)]


@dataclass(frozen=True, slots=True)
class Candidates:
    """One step's texts, and indices and masks over them."""

    queries: list[str]
    """[U] every anchor once."""
    documents: list[str]
    """[M] positives and drawn negatives, each once."""
    anchor_N: Tensor
    """Each row's anchor among the queries."""
    target_N: Tensor
    """Each row's positive among the documents."""
    own_NM: Tensor
    """True at each row's own negatives."""
    excluded: dict[Block, Tensor]
    """Block -> True where a candidate is no negative, because of its text."""

    @classmethod
    def of(cls, batch: Sequence[Example], relations: Relations, blocks: Collection[Block]) -> Candidates:
        """Collect the candidates of rows whose negatives are already drawn."""
        queries = list(dict.fromkeys(example.anchor for example in batch))
        documents = list(
            dict.fromkeys([e.positive for e in batch] + [text for e in batch for text in e.negatives]),
        )
        row_of = {text: index for index, text in enumerate(queries)}
        column = {text: index for index, text in enumerate(documents)}
        target_N = torch.tensor([column[example.positive] for example in batch])
        own_NM = own_mask([[column[text] for text in example.negatives] for example in batch], len(documents))
        return cls(
            queries,
            documents,
            torch.tensor([row_of[example.anchor] for example in batch]),
            target_N,
            own_NM,
            {block: _excluded(block, batch, queries, documents, target_N, own_NM, relations) for block in blocks},
        )

    def to(self, device: torch.device) -> Candidates:
        """The same with its tensors on a device."""
        excluded = {block: to_device(mask, device) for block, mask in self.excluded.items()}
        anchor_N, target_N, own_NM = (
            to_device(tensor, device) for tensor in (self.anchor_N, self.target_N, self.own_NM)
        )
        return Candidates(self.queries, self.documents, anchor_N, target_N, own_NM, excluded)

    def cosines(self, query_UD: Tensor, document_MD: Tensor) -> tuple[dict[Block, Tensor], Tensor]:
        """Compute the cosines of the blocks in use, and those of each row's anchor and positive [N]."""
        blocks = {"query-document", *self.excluded}
        cosine = block_cosines(blocks, query_UD, document_MD, self.anchor_N, self.target_N)
        positive_N = cosine["query-document"].gather(1, self.target_N[:, None])[:, 0]
        return {block: cosine[block] for block in cosine if block in self.excluded}, positive_N

    def likely_positives(
        self,
        cosine: Mapping[Block, Tensor],
        positive_N: Tensor,
        absolute_margin: float | None,
        relative_margin: float | None,
        *,
        mask_mined: bool,
    ) -> dict[Block, Tensor]:
        """Find candidates too close to count as negatives; a row's own negatives are spared unless `mask_mined`."""
        likely = {
            block: margin_mask(cosine_NM, positive_N, absolute_margin, relative_margin)
            for block, cosine_NM in cosine.items()
        }
        if not mask_mined and "query-document" in likely:
            likely["query-document"] &= ~self.own_NM
        return likely

    def all_excluded(
        self,
        cosine: Mapping[Block, Tensor],
        positive_N: Tensor,
        guide: tuple[Mapping[Block, Tensor], Tensor] | None,
        config: ObjectiveConfig,
    ) -> dict[Block, Tensor]:
        """Combine the masks by text, by the model's own cosines, and by a guide's.

        Args:
            cosine: the cosines by the model in training.
            positive_N: its cosines of anchors and positives.
            guide: the same two by the guide, if there is one.
            config: the margins.
        """
        margins = (config.false_negative_margin, config.false_negative_relative_margin)
        judges = [(cosine, positive_N, *margins)] if margins != (None, None) else []
        if guide is not None:
            judges.append((*guide, config.guide_margin, config.guide_relative_margin))
        excluded = dict(self.excluded)
        for judge in judges:
            for block, likely in self.likely_positives(*judge, mask_mined=config.mask_mined).items():
                excluded[block] = excluded[block] | likely
        return excluded


def _excluded(
    block: Block,
    batch: Sequence[Example],
    queries: Sequence[str],
    documents: Sequence[str],
    target_N: Tensor,
    own_NM: Tensor,
    relations: Relations,
) -> Tensor:
    anchors = [example.anchor for example in batch]
    if block == "query-document":
        return identity_mask(relations.ids(anchors), relations.ids(documents), target_N, relations.positives)
    positives = [example.positive for example in batch]
    if block == "document-query":
        return related_mask([{known} for known in relations.ids(positives)], relations.query_keys(queries))
    if block == "query-query":
        return related_mask(relations.query_keys(anchors), relations.query_keys(queries))
    mask = related_mask(relations.document_keys(positives), relations.document_keys(documents))
    # A row's own negatives have been compared with its anchor; they are near its positive by choice.
    return mask | own_NM
