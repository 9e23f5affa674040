"""A training's texts as tokens, and the backward pass of a step.

No text is computed twice in a step: a batch's queries and documents form one set of texts.

Legend: Q queries and M documents of a step, U unique texts of all, A retained ones, D vector size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from acclimate.configs import ObjectiveConfig, TrainConfig
from acclimate.core.batching import step_seed
from acclimate.core.lora import generated_as_leaves, held
from acclimate.core.losses import mean_distance, narrowed, over_dims
from acclimate.errors import UsageError
from acclimate.models.devices import to_device
from acclimate.models.encoder import Encoder
from acclimate.models.tokens import joined_tokens
from acclimate.training.chunk_budget import chunk_budget
from acclimate.training.fit import StepResult
from acclimate.training.gradcache import chunked_backward
from acclimate.training.references import ROLES, FixedVectors, References
from acclimate.types import PAIR_ROLE, Role, Sides

RETAINED_SHARE = 0.25
"""Retained out-of-domain texts in a step, for each row of its batch."""
RETAINED_SEED = 1
"""Seeds their draws, beside the training's seed and the step."""


@dataclass(frozen=True, slots=True)
class Options:
    """What every recipe takes besides the encoder, the examples, the schedule and their settings."""

    task: str | None = None
    """Task whose prompts are put before the texts; the model's default prompts if not given."""
    weight: float = 1.0
    """Factor of the loss whose gradient is taken; the loss is reported without it."""
    references: References = field(default_factory=References)
    """The models and terms that the objective names (`load_references`)."""
    learned: MutableMapping[str, nn.Parameter] | None = None
    """Gets the loss's own parameters by name, for `fit` to train them with the model's."""
    roles: tuple[Role, Role] = (PAIR_ROLE, PAIR_ROLE)
    """Roles of the two texts of a labelled pair. By default both are queries, the side that every adapter adapts."""
    own: Sequence[tuple[str, str]] = ()
    """Queries that are documents too, with the document's text (`retrieval.own_documents`)."""
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    """Context entered around every forward pass (bf16 over float32 weights)."""


DEFAULTS = Options()


class StepTexts:
    """A training's texts, tokenised once, and the backward pass of a step.

    It also adds to a step's loss what goes with every loss: its value over leading dimensions, and the distance to the
    base.

    Args:
        encoder: its trainable parameters get the gradient.
        texts: (role, text); repeated ones are kept once, also across roles where their prompts are the same.
        objective: dimensions, weight of the distance to the base.
        train: batch size, sides, memory, gradient checkpointing.
        seed: fixes the dropout.
        options: see `Options`.
        second: role of what `backward` calls documents: of labelled pairs it may be that of a query.

    Raises:
        UsageError: a dimension that the model does not have.
    """

    def __init__(
        self,
        encoder: Encoder,
        texts: Iterable[tuple[Role, str]],
        objective: ObjectiveConfig,
        train: TrainConfig,
        seed: int,
        options: Options = DEFAULTS,
        second: Role = "document",
    ) -> None:
        self.encoder, self.seed, self._second = encoder, seed, second
        self.task, self.weight, self.autocast = options.task, options.weight, options.autocast
        references = options.references
        fixed = references.document_vectors
        self._fixed = None if fixed is None else FixedVectors({"document": fixed}, encoder.device)
        named: dict[tuple[str, str], tuple[Role, str]] = {}
        retained = _with_roles(references.retained, train.sides)
        for role, text in (*texts, *retained):
            if role == "query" or fixed is None:
                named.setdefault(self._key(role, text), (role, text))
        by_role: dict[Role, list[str]] = {"query": [], "document": []}
        for role, text in named.values():
            by_role[role].append(text)
        self._named = [(role, text) for role in by_role for text in by_role[role]]
        self._number = {self._key(role, text): number for number, (role, text) in enumerate(self._named)}
        parts = [encoder.tokenise(role_texts, role, self.task) for role, role_texts in by_role.items() if role_texts]
        self.tokens = joined_tokens(parts)
        self.lengths_N = self.tokens.lengths
        self._dtype = torch.promote_types(next(encoder.model.parameters()).dtype, torch.float32)
        self.budget = chunk_budget(encoder.model, encoder.device, train)
        self._dims = _dims(objective, encoder)
        self._retained = np.array([self._number[self._key(role, text)] for role, text in retained], np.int64)
        self._retained_count = min(len(retained), math.ceil(RETAINED_SHARE * train.batch_size))
        self._retain_weight = objective.effective_retain_weight
        self._base: FixedVectors | None = None
        self._distance: Tensor | None = None
        if self._retain_weight:
            if references.base is None:
                raise UsageError(
                    "retain_weight needs the base's vectors", fix="Give the recipe `load_references(...)`."
                )
            self._base = references.vectors(references.base, self._named, "encode (base)", self.task)

    def backward(
        self,
        step: int,
        queries: Sequence[str],
        documents: Sequence[str],
        loss_of: Callable[[Tensor, Tensor], Tensor],
        *,
        parameters: Sequence[nn.Parameter] = (),
        metrics: Callable[[], dict[str, float | Tensor]] = dict,
    ) -> StepResult:
        """Add the gradient of `loss_of(query vectors [Q, D], document vectors [M, D])` to the trainable parameters.

        Args:
            step: seeds the dropout.
            queries: texts of the step in the role of a query; repeated ones are computed once.
            documents: texts in the second role; documents' vectors are looked up where they are fixed.
            loss_of: called once for each size of vectors.
            parameters: the loss's own parameters.
            metrics: gives further numbers to log.
        """
        computed: Sequence[str] = documents if self._fixed is None else ()
        parts = [self._numbers("query", queries), self._numbers(self._second, computed), self._retained_in_step(step)]
        numbers_U, inverse = np.unique(np.concatenate(parts), return_inverse=True)
        places = np.split(inverse, np.cumsum([len(part) for part in parts])[:-1])
        lengths_U = self.lengths_N[numbers_U]
        chunks = self.budget.chunks(lengths_U)

        def encode(chunk: np.ndarray) -> Tensor:
            with self.autocast():
                return self.encoder.forward_tokens(self.tokens, numbers_U[chunk])

        model = self.encoder.model
        with held(model), generated_as_leaves(model):
            model.train()
            loss = chunked_backward(
                encode,
                chunks,
                self._whole_loss(loss_of, numbers_U, places, documents),
                torch.zeros(len(numbers_U), self.encoder.use.dim, dtype=self._dtype, device=self.encoder.device),
                tokens=[int(lengths_U[chunk].sum()) for chunk in chunks],
                max_tokens=self.budget.max_tokens,
                seed_of=lambda chunk: step_seed(self.seed, step, chunk),
                in_step=self.encoder.sharded,
                parameters=parameters,
            )
        numbers = metrics() if self._distance is None else metrics() | {"retain_distance": self._distance}
        return StepResult(loss / self.weight, int(lengths_U.sum()), metrics=numbers)

    def _whole_loss(
        self,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        numbers_U: np.ndarray,
        places: Sequence[np.ndarray],
        documents: Sequence[str],
    ) -> Callable[[Tensor], Tensor]:
        """Make the function from vectors [U, D] of the step's texts to the loss over all dimensions, with the distance
        to the base, weighted.

        Args:
            loss_of: (query vectors [Q, D], document vectors [M, D]) -> loss.
            numbers_U: the texts' rows in `tokens`.
            places: positions in U of the queries, of the computed documents, and of the retained texts.
            documents: all documents of the step.
        """
        query, document, retained = (to_device(torch.from_numpy(place), self.encoder.device) for place in places)
        fixed_MD = None if self._fixed is None or not documents else self._fixed("document", documents)
        held = numbers_U[places[2]] if self._retained_count else numbers_U
        base_AD = None if self._base is None else self._base.rows([self._named[number] for number in held])

        def loss_of_vectors(vectors_UD: Tensor) -> Tensor:
            document_MD = vectors_UD[document] if fixed_MD is None else narrowed(fixed_MD, vectors_UD.shape[1])
            return loss_of(vectors_UD[query], document_MD)

        def whole(vectors_UD: Tensor) -> Tensor:
            loss = over_dims(loss_of_vectors, self._dims)(vectors_UD) if self._dims else loss_of_vectors(vectors_UD)
            if base_AD is not None:
                distance = mean_distance(vectors_UD[retained] if self._retained_count else vectors_UD, base_AD)
                self._distance = distance.detach()
                loss = loss + self._retain_weight * distance
            return self.weight * loss

        return whole

    def _numbers(self, role: Role, texts: Sequence[str]) -> np.ndarray:
        """The texts' rows in `tokens`."""
        return np.fromiter((self._number[self._key(role, text)] for text in texts), dtype=np.int64, count=len(texts))

    def _retained_in_step(self, step: int) -> np.ndarray:
        """Rows in `tokens` of the out-of-domain texts that a step retains."""
        draws = np.random.default_rng([self.seed, step, RETAINED_SEED])
        return draws.choice(self._retained, self._retained_count, replace=False)

    def _key(self, role: Role, text: str) -> tuple[str, str]:
        return self.encoder.use.prompts.prompt(role, self.task), text


def _with_roles(texts: Sequence[str], sides: Sides) -> list[tuple[Role, str]]:
    """Give the texts the roles of query and document by turns; where only queries are adapted, all are queries."""
    roles = ROLES[:1] if sides == "query" else ROLES
    return [(roles[index % len(roles)], text) for index, text in enumerate(texts)]


def _dims(objective: ObjectiveConfig, encoder: Encoder) -> dict[int, float]:
    """Number of dimensions -> weight of the loss over them; empty where there is only the full size."""
    dims, weights = objective.matryoshka_dims, objective.matryoshka_weights
    if not dims:
        return {}
    if max(dims) > encoder.use.dim:
        raise UsageError(f"matryoshka_dims = {max(dims)} with {encoder.source.id}", possible=f"1 to {encoder.use.dim}")
    return {encoder.use.dim: 1.0} | dict(zip(dims, weights or (1.0,) * len(dims), strict=True))
