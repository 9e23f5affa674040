"""Training of a hypernetwork as `loss_fn`s for `fit`: through the weights that it generates, or towards given ones.

A step has several tasks, each with its own condition and so with its own adapter. Through an encoder these are the K
adapters of one batch (`core.lora`): every text takes its task's, and the generator's graph, which all of them share, is
gone through once per step, not once per chunk. A query-vector map needs no encoder at all: the vectors are there.

Gradient checkpointing is not for this: it would read the gate again when another chunk's is open.

Shapes: T tasks of the step, Q queries and M documents of each, U texts of the step, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acclimate import processes
from acclimate.configs import TrainConfig
from acclimate.configs.hypernetwork import HypernetworkConfig
from acclimate.core import lora
from acclimate.core.batching import grouped, step_seed
from acclimate.core.losses import info_nce
from acclimate.errors import UsageError
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.adapted_texts import AdaptedTexts
from acclimate.models.hypernetwork.layers import Weights, mapped
from acclimate.models.hypernetwork.network import Network
from acclimate.models.tokens import joined_tokens
from acclimate.runs.run_folder import RunFolder
from acclimate.training.checkpoint import Progress
from acclimate.training.chunk_budget import chunk_budget
from acclimate.training.fit import LossFn, StepResult, fit
from acclimate.training.gradcache import chunked_backward
from acclimate.training.schedule import TaskSchedule
from acclimate.training.task_draws import LibraryVectors, StepDraw, TaskDraws
from acclimate.types import Role


def train_network(
    network: Network,
    loss_fn: LossFn,
    schedule: TaskSchedule,
    config: HypernetworkConfig,
    folder: Path,
    identity: str,
    dtype: str = "float32",
) -> Progress:
    """Train a network to its last step; a second start goes on from the last checkpoint.

    Args:
        network: changed in place.
        loss_fn: of this network.
        schedule: of the loss.
        config: the optimiser's settings.
        folder: gets the checkpoints and metrics.jsonl.
        identity: hash of all that the training depends on.
        dtype: the number format that the encoder computes in; maps on query vectors are float32.

    Raises:
        AcclimateError: the loss or the gradient is not finite.
        Interrupted: ctrl-C.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return fit(
        network.trainable(),
        loss_fn,
        schedule,
        config.optimiser,
        selection=None,
        folder=folder / "checkpoints",
        metrics=RunFolder(folder).metrics,
        identity=identity,
        dtype=dtype,
    )


UNCHANGED = 5.0
"""Weight of the distance 1 - cosine of vectors that shall stay as they are."""


def relevance_loss(
    query_TQD: Tensor, document_TMD: Tensor, draw: StepDraw, temperature: float, moved_T: Tensor | None = None
) -> Tensor:
    """InfoNCE within each task, the mean over tasks: documents known to be relevant are no negatives.

    Args:
        query_TQD: unit rows.
        document_TMD: unit rows.
        draw: what the step works on.
        temperature: cosines are divided by it.
        moved_T: how far each task's vectors are from the base's, which takes the place of its loss where its condition
            tells nothing.
    """
    target_Q = torch.arange(query_TQD.shape[1], device=query_TQD.device)
    excluded_TQM = draw.excluded_TQM.to(query_TQD.device)
    losses = [
        info_nce(query_QD, document_MD, target_Q, excluded_QM, temperature)
        for query_QD, document_MD, excluded_QM in zip(query_TQD, document_TMD, excluded_TQM, strict=True)
    ]
    loss_T = torch.stack(losses)
    if moved_T is not None:
        loss_T = torch.where(draw.unknown_T.to(loss_T.device), UNCHANGED * moved_T, loss_T)
    return loss_T.mean()


def moved(vectors_TND: Tensor, base_TND: Tensor) -> Tensor:
    """Mean distance 1 - cosine [T] of unit rows from the base's."""
    return 1 - (vectors_TND * base_TND).sum(-1).mean(-1)


def query_map_objective(
    network: Network, draws: TaskDraws, vectors: LibraryVectors, config: HypernetworkConfig
) -> LossFn:
    """Make the loss of query-vector maps. With sides "both" documents go through the map too, which no index of base
    vectors can follow: the laboratory of what an adapter of both sides can do.

    Args:
        network: over the one layer of a query-vector map.
        draws: what each step works on.
        vectors: of all texts.
        config: sides and temperature.
    """
    device = next(network.parameters()).device
    query_ND = torch.from_numpy(vectors.query_ND).to(device)
    document_MD = torch.from_numpy(vectors.document_MD).to(device)

    def loss_fn(step: int) -> StepResult:
        draw = draws(step)
        weights = network(draw.conditions.to(device))
        document_TMD = document_MD[torch.from_numpy(draw.document_TM)]
        if config.sides == "both":
            document_TMD = mapped(document_TMD, weights)
        base_TQD = query_ND[torch.from_numpy(draw.query_TQ)]
        query_TQD = mapped(base_TQD, weights)
        return _taken(relevance_loss(query_TQD, document_TMD, draw, config.temperature, moved(query_TQD, base_TQD)))

    return loss_fn


class AdapterObjective:
    """The loss of adapters, through an encoder: the `loss_fn` of a training.

    Args:
        network: over layers of the encoder.
        encoder: the base; stays as it is.
        draws: what each step works on.
        vectors: the base's, for what the adapter does not change.
        config: sides and temperature.
        train: memory for activations.
        cache: keeps what the blocks below those layers make of the texts.
        autocast: context entered around every forward pass (bf16 over float32 weights).

    Raises:
        UsageError: gradient checkpointing.
    """

    def __init__(
        self,
        network: Network,
        encoder: Encoder,
        draws: TaskDraws,
        vectors: LibraryVectors,
        config: HypernetworkConfig,
        train: TrainConfig,
        cache: Path,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        if train.gradient_checkpointing:
            raise UsageError("gradient_checkpointing with a hypernetwork", fix="Lower tasks_per_step instead.")
        self.network, self.draws, self.config, self.autocast = network, draws, config, autocast
        self.query_ND = torch.from_numpy(vectors.query_ND).to(encoder.device)
        self.document_MD = torch.from_numpy(vectors.document_MD).to(encoder.device)
        roles: tuple[Role, ...] = ("query",) if config.sides == "query" else ("query", "document")
        texts = {"query": draws.library.queries, "document": draws.library.documents}
        self.tokens = joined_tokens([encoder.tokenise(texts[role], role) for role in roles])
        self.documents_from = len(draws.library.queries)
        names = [layer.name for layer in network.layers]
        self.texts = AdaptedTexts(encoder, self.tokens, names, cache, "lower blocks, once")
        self.encoder = self.texts.encoder
        self.budget = chunk_budget(self.encoder.model, encoder.device, train, self.texts.below)

    def __call__(self, step: int) -> StepResult:
        """Take one step (from 0)."""
        draw = self.draws(step)
        weights = self.network(draw.conditions.to(self.encoder.device))
        self.texts.set_weights(weights)
        model = self.encoder.model
        with lora.held(model), lora.generated_as_leaves(model):
            model.train()
            return self._backward(step, draw)

    def _backward(self, step: int, draw: StepDraw) -> StepResult:
        T, Q = draw.query_TQ.shape
        parts = [draw.query_TQ] if self.config.sides == "query" else [draw.query_TQ, draw.document_TM]
        parts = [part + (self.documents_from if place else 0) for place, part in enumerate(parts)]
        numbers_TN = np.concatenate(parts, 1)
        named = numbers_TN + np.arange(T)[:, None] * len(self.tokens)  # a text of two tasks is two texts
        unique_U, inverse = np.unique(named, return_inverse=True)
        place_TN = torch.from_numpy(inverse.reshape(numbers_TN.shape)).to(self.encoder.device)
        task_U, number_U = np.divmod(unique_U, len(self.tokens))
        lengths_U = self.tokens.lengths[number_U]
        chunks = [grouped(chunk, task_U[chunk].tolist()) for chunk in self.budget.chunks(lengths_U)]

        def encode(chunk: np.ndarray) -> Tensor:
            with self.autocast():
                return self.texts.vectors(number_U[chunk], task_U[chunk])

        def loss_of(vectors_UD: Tensor) -> Tensor:
            query_TQD = vectors_UD[place_TN[:, :Q]]
            fixed = self.config.sides == "query"
            document_TMD = (
                self.document_MD[torch.from_numpy(draw.document_TM)] if fixed else vectors_UD[place_TN[:, Q:]]
            )
            moved_T = moved(query_TQD, self.query_ND[torch.from_numpy(draw.query_TQ)])
            if not fixed:
                moved_T = (moved_T + moved(document_TMD, self.document_MD[torch.from_numpy(draw.document_TM)])) / 2
            return relevance_loss(query_TQD, document_TMD, draw, self.config.temperature, moved_T)

        loss = chunked_backward(
            encode,
            chunks,
            loss_of,
            torch.zeros(len(unique_U), self.encoder.use.dim, device=self.encoder.device),
            tokens=[int(lengths_U[chunk].sum()) for chunk in chunks],
            max_tokens=self.budget.max_tokens,
            seed_of=lambda chunk: step_seed(self.draws.schedule.seed, step, chunk),
        )
        return StepResult(loss, int(lengths_U.sum()))


def reconstruction_objective(
    network: Network, draws: TaskDraws, trained: Sequence[Mapping[str, tuple[Tensor, Tensor]]]
) -> LossFn:
    """Make the loss of reconstruction: how far the generated updates are from trained ones, relative to their size.

    Args:
        network: the network in training.
        draws: what each step works on; only its tasks and their conditions are used.
        trained: layer -> (A [r, I], B [O, r]) of each of the library's tasks.
    """
    device = next(network.parameters()).device
    placed = [{name: (A.to(device), B.to(device)) for name, (A, B) in modules.items()} for modules in trained]

    def loss_fn(step: int) -> StepResult:
        draw = draws(step)
        weights = network(draw.conditions.to(device))
        return _taken(reconstruction_loss(weights, [placed[task] for task in draw.tasks.tolist()]))

    return loss_fn


def reconstruction_loss(weights: Weights, trained: Sequence[Mapping[str, tuple[Tensor, Tensor]]]) -> Tensor:
    """Squared distance of generated updates B A from trained ones over all layers, by the trained ones' squared size.

    The updates are compared, not A and B, which many pairs share one update; no [O, I] matrix is built:
    |B A|^2 = sum of (B^T B) * (A A^T).
    """
    distance, size = [], []
    for name, (A_TrI, B_TOr) in weights.items():
        A_TsI = torch.stack([modules[name][0] for modules in trained])
        B_TOs = torch.stack([modules[name][1] for modules in trained])
        A, B = torch.cat([A_TrI, A_TsI], 1), torch.cat([B_TOr, -B_TOs], 2)
        distance.append(((B.mT @ B) * (A @ A.mT)).sum((1, 2)))
        size.append(((B_TOs.mT @ B_TOs) * (A_TsI @ A_TsI.mT)).sum((1, 2)))
    return (torch.stack(distance).sum(0) / torch.stack(size).sum(0).clamp_min(1e-12)).mean()


def _taken(loss: Tensor) -> StepResult:
    """Take the gradient of a loss that every process has whole: the first one's is the sum of all."""
    if processes.is_main():
        loss.backward()  # type: ignore[no-untyped-call]
    return StepResult(loss.detach(), 0)
