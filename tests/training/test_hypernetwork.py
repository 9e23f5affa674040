"""Training of a hypernetwork: whole gradients through many chunks, steps that repeat, and whether it learns to use
its condition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.configs import TrainConfig
from acclimate.configs.hypernetwork import HypernetworkConfig, NetworkConfig
from acclimate.core import lora
from acclimate.core.pooling import unit
from acclimate.data.relevance import RelevanceTask, TaskLibrary
from acclimate.errors import Interrupted, UsageError
from acclimate.files import iter_jsonl
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import ConditionVectors, batch_of
from acclimate.models.hypernetwork.layers import Weights, layers_of, mapped, of_task, query_vector_layers
from acclimate.models.hypernetwork.network import Architecture, GeneratorName, Network
from acclimate.training.fit import StepResult
from acclimate.training.hypernetwork import (
    UNCHANGED,
    AdapterObjective,
    moved,
    query_map_objective,
    reconstruction_loss,
    reconstruction_objective,
    relevance_loss,
    train_network,
)
from acclimate.training.task_draws import (
    LibraryVectors,
    TaskDraws,
    drawn_count,
    drawn_parts,
    encode_library,
    task_schedule,
)
from tests.models.adapted import WORDS, write_model


def tiny_library() -> TaskLibrary:
    """Texts of two words; relevant is what has the same first word, the same second word, or both."""
    things, places = WORDS[2:6], WORDS[8:12]
    texts = tuple(f"{thing} in the {place}" for thing in things for place in places)
    first, second = np.repeat(np.arange(4), 4), np.tile(np.arange(4), 4)
    definitions = {"thing": first, "place": second, "both": first * 4 + second}
    tasks = (RelevanceTask(name, (f"find {name}", f"the {name}"), key, key) for name, key in definitions.items())
    return TaskLibrary(texts, texts, tuple(tasks))


def network(encoder: Encoder, generator: GeneratorName = "core-modulation", seed: int = 0) -> Network:
    sizes = Architecture(generator=generator, dim=32, width=16, directions=8, shared_rank=4, own_rank=2)
    made = Network(sizes, layers_of(encoder.model, ["query", "value"]), seed=seed)
    with torch.no_grad():
        for parameter in made.parameters():  # away from the start, where the tasks are all alike
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return made


def world(tmp_path: Path, **settings: Any) -> tuple[Encoder, TaskDraws, HypernetworkConfig]:
    config = HypernetworkConfig(tasks_per_step=3, queries_per_task=4, max_pairs=4, steps=6, **settings)
    encoder = Encoder.load(str(write_model(tmp_path / "base", "bert")), device="cpu", dtype="float32")
    library = tiny_library()
    schedule = task_schedule(len(library.tasks), config, seed=0)
    return encoder, TaskDraws(library, encode_library(encoder, library), schedule, config), config


def gradients(made: Network) -> dict[str, Tensor]:
    found = {}
    for name, parameter in made.trainable().items():
        found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        parameter.grad = None
    return found


@pytest.mark.parametrize("sides", ["query", "both"])
@pytest.mark.parametrize("memory", [2.0, 1e-5], ids=["one chunk", "many chunks"])
def test_the_gradient_is_that_of_each_task_encoded_alone(tmp_path: Path, sides: Any, memory: float) -> None:
    """Three adapters in one batch, cut into chunks, against every task's texts through its own adapter at once. The
    condition of one of them tells nothing."""
    encoder, draws, config = world(tmp_path, sides=sides, unknown_share=0.9)
    draws.vectors = replace(draws.vectors, unknown_WD=encoder.encode(["find the red"]))
    made, plain = network(encoder), encoder.fork()
    train = TrainConfig(activation_memory_gb=memory)
    objective = AdapterObjective(made, encoder, draws, draws.vectors, config, train, tmp_path)
    visits: list[int] = []
    made.condition.after.register_full_backward_hook(lambda *_: visits.append(1))
    result = objective(0)
    found = gradients(made)
    assert len(visits) == 1  # the generator's graph is gone through once, however many chunks there are

    draw, library = draws(0), draws.library
    assert draw.unknown_T.any() and not draw.unknown_T.all()
    weights = made(draw.conditions)
    lora.attach(plain.model, ["query", "value"], rank=1)
    queries, documents = [], []
    for task, (query_Q, document_M) in enumerate(zip(draw.query_TQ, draw.document_TM, strict=True)):
        for name, layer in lora.lora_layers(plain.model).items():
            A_rI, B_Or = of_task(weights, task)[name]
            layer.set_weights(A_rI[None], B_Or[None])
        tokens = plain.tokenise(library.queries, "query")
        queries.append(plain.forward_tokens(tokens, query_Q))
        with lora.adapters_off(plain.model) if sides == "query" else lora.held(plain.model):
            tokens = plain.tokenise(library.documents, "document")
            documents.append(plain.forward_tokens(tokens, document_M))
    query_TQD, document_TMD = torch.stack(queries), torch.stack(documents)
    distance_T = moved(query_TQD, torch.from_numpy(draws.vectors.query_ND[draw.query_TQ]))
    if sides == "both":
        further_T = moved(document_TMD, torch.from_numpy(draws.vectors.document_MD[draw.document_TM]))
        distance_T = (distance_T + further_T) / 2
    loss = relevance_loss(query_TQD, document_TMD, draw, config.temperature, distance_T)
    loss.backward()
    assert float(result.loss) == pytest.approx(loss.item(), rel=1e-5)
    expected = gradients(made)
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], rtol=1e-3, atol=1e-6), name
    assert sum(float(gradient.abs().sum()) for gradient in found.values()) > 0


def test_gradient_checkpointing_is_refused(tmp_path: Path) -> None:
    encoder, draws, config = world(tmp_path)
    with pytest.raises(UsageError, match="gradient_checkpointing with a hypernetwork"):
        AdapterObjective(
            network(encoder), encoder, draws, draws.vectors, config, TrainConfig(gradient_checkpointing=True), tmp_path
        )


def test_a_step_is_a_function_of_seed_and_step() -> None:
    library = tiny_library()
    vectors = random_vectors(library)
    config = HypernetworkConfig(tasks_per_step=2, queries_per_task=4, max_pairs=4, steps=5)
    schedule = task_schedule(3, config, seed=4)
    assert schedule.steps == 5
    draws, again = (TaskDraws(library, vectors, schedule, config) for _ in range(2))
    for step in (3, 0, 1):
        one, other = draws(step), again(step)
        assert np.array_equal(one.query_TQ, other.query_TQ)
        assert np.array_equal(one.document_TM, other.document_TM)
        assert torch.equal(one.conditions.query_TPD, other.conditions.query_TPD)
        for task, query_Q, document_M, excluded_QM in zip(
            one.tasks, one.query_TQ, one.document_TM, one.excluded_TQM.numpy(), strict=True
        ):
            relevant = library.tasks[task].relevant(query_Q, document_M)
            assert relevant.diagonal().all()
            assert not excluded_QM.diagonal().any()
            others = ~np.eye(*relevant.shape, dtype=bool)
            assert excluded_QM[relevant & others].all()  # no relevant document is a negative


def random_vectors(library: TaskLibrary) -> LibraryVectors:
    generator = np.random.default_rng(0)

    def rows(count: int) -> Any:
        vectors = generator.normal(size=(count, 16)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return LibraryVectors(
        query_ND=rows(len(library.queries)),
        document_MD=rows(len(library.documents)),
        descriptions=tuple(rows(len(task.descriptions)) for task in library.tasks),
    )


def test_some_conditions_tell_nothing() -> None:
    """A description of something unknown alone, or with pairs exchanged; beside a task's own pairs, these count."""
    library = tiny_library()
    unknown_WD = random_vectors(library).query_ND[:3]
    vectors = replace(random_vectors(library), unknown_WD=unknown_WD)
    config = HypernetworkConfig(
        parts=("description", "pairs"), tasks_per_step=3, queries_per_task=4, max_pairs=4, unknown_share=0.5
    )
    draws = TaskDraws(library, vectors, task_schedule(3, config, seed=0), config)
    seen = set()
    for step in range(40):
        draw = draws(step)
        for place, number in enumerate(draw.tasks.tolist()):
            description_D = draw.conditions.description_TD[place].numpy()
            strange = bool((unknown_WD == description_D).all(1).any())
            described, pairs = bool(draw.conditions.described_T[place]), int(draw.conditions.pair_TP[place].sum())
            tells_nothing = bool(draw.unknown_T[place])
            known = [row.tobytes() for row in vectors.descriptions[number]]
            assert not described or strange or description_D.tobytes() in known
            assert not tells_nothing or strange or not described
            assert not strange or tells_nothing or pairs  # told by its own pairs
            seen.add((described, bool(pairs), strange, tells_nothing))
    both = {(True, True, False, False), (True, True, True, True), (True, True, True, False)}
    assert seen == both | {(True, False, False, False), (True, False, True, True)} | {
        (False, True, False, False),
        (False, True, False, True),
    }


def test_where_nothing_is_told_the_loss_is_the_distance_from_the_base() -> None:
    library = tiny_library()
    vectors = random_vectors(library)
    config = HypernetworkConfig(tasks_per_step=2, queries_per_task=4)
    draw = TaskDraws(library, vectors, task_schedule(3, config, seed=0), config)(0)
    base_TQD = torch.from_numpy(vectors.query_ND[draw.query_TQ])
    query_TQD, document_TMD = base_TQD.roll(1, -1), torch.from_numpy(vectors.document_MD[draw.document_TM])
    distance_T = moved(query_TQD, base_TQD)
    by_hand = 1 - float((query_TQD[1] * base_TQD[1]).sum(1).mean())
    assert float(distance_T[1]) == pytest.approx(by_hand, rel=1e-5)
    told = replace(draw, unknown_T=torch.tensor([False, True]))
    plain = relevance_loss(query_TQD[:1], document_TMD[:1], replace(draw, excluded_TQM=draw.excluded_TQM[:1]), 0.05)
    found = relevance_loss(query_TQD, document_TMD, told, 0.05, distance_T)
    assert float(found) == pytest.approx((float(plain) + UNCHANGED * by_hand) / 2, rel=1e-5)


def test_parts_and_counts_of_conditions() -> None:
    generator = np.random.default_rng(0)
    drawn = [frozenset(drawn_parts(("description", "pairs"), generator)) for _ in range(300)]
    shares = {choice: drawn.count(choice) / 300 for choice in set(drawn)}
    assert set(shares) == {frozenset({"description"}), frozenset({"pairs"}), frozenset({"description", "pairs"})}
    assert min(shares.values()) > 0.25
    counts = [drawn_count(32, generator) for _ in range(500)]
    assert (min(counts), max(counts)) == (1, 32)
    assert drawn_count(1, generator) == 1


@pytest.mark.parametrize("wrong", [{"parts": ()}, {"parts": ("pairs", "pairs")}, {"steps": 0}, {"temperature": 0.0}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        HypernetworkConfig(**wrong)


def test_a_training_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    library = tiny_library()
    vectors = random_vectors(library)
    config = HypernetworkConfig(tasks_per_step=2, queries_per_task=4, steps=8)
    schedule = task_schedule(3, config, seed=0)
    sizes = Architecture(generator="text-to-lora", dim=16, width=8, directions=8, shared_rank=2, own_rank=2)

    def trained(folder: str, stop: int | None) -> Network:
        made = Network(sizes, query_vector_layers(16), seed=0)
        step_loss = query_map_objective(made, TaskDraws(library, vectors, schedule, config), vectors, config)

        def loss_fn(step: int) -> StepResult:
            if step == stop:
                raise KeyboardInterrupt
            return step_loss(step)

        train_network(made, loss_fn, schedule, config, tmp_path / folder, "same")
        return made

    straight = trained("straight", None)
    with pytest.raises(Interrupted, match="stopped at step 5 of 8"):
        trained("stopped", 5)
    resumed = trained("stopped", None)
    for name, parameter in straight.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name
    rows = [line.value for line in iter_jsonl(tmp_path / "stopped" / "metrics.jsonl") if line.value]
    assert [row["step"] for row in rows] == list(range(1, 9))


def test_the_distance_of_updates_by_hand() -> None:
    """Generated [[1, 0], [0, 0]], trained [[0, 0], [0, 2]]: 1 + 4 over 4; the same update in other factors: 0."""
    one = (torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0], [0.0]]]))
    two = (torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0], [2.0]]))
    weights: Weights = {"layer": one}
    assert float(reconstruction_loss(weights, [{"layer": two}])) == pytest.approx(5 / 4)
    assert float(reconstruction_loss(weights, [{"layer": (5 * one[0][0], one[1][0] / 5)}])) == pytest.approx(
        0, abs=1e-6
    )


K, VALUES, SIZE = 6, 4, 40


def attribute_world(seed: int, texts: int) -> tuple[TaskLibrary, LibraryVectors]:
    """Vectors that are sums of a direction for each attribute's value, and a little noise; no model is needed.

    Tasks are the sets of one or two of six attributes, described by the sum of the attributes' own directions.
    """
    fixed, generator = np.random.default_rng(0), np.random.default_rng(seed)
    directions, names = fixed.normal(size=(K, VALUES, SIZE)), fixed.normal(size=(K, SIZE))
    values = [generator.integers(VALUES, size=(texts, K)) for _ in range(2)]
    rows = [directions[np.arange(K), value].sum(1) + 0.3 * generator.normal(size=(texts, SIZE)) for value in values]
    together = [(a,) for a in range(K)] + [(a, b) for a in range(K) for b in range(a)]
    tasks, described = [], []
    for chosen in together:
        query, document = ((value[:, chosen] * VALUES ** np.arange(len(chosen))).sum(1) for value in values)
        tasks.append(RelevanceTask("+".join(map(str, chosen)), ("-",) * 4, query, document))
        described.append(names[list(chosen)].mean(0) + 0.1 * fixed.normal(size=(4, SIZE)))
    numbers = tuple(map(str, range(texts)))
    query_ND, document_MD = (as_rows(row) for row in rows)
    vectors = LibraryVectors(
        query_ND=query_ND, document_MD=document_MD, descriptions=tuple(as_rows(row) for row in described)
    )
    return TaskLibrary(numbers, numbers, tuple(tasks)), vectors


def as_rows(vectors: Any) -> Any:
    return unit(torch.from_numpy(vectors).float()).numpy()


def precision(weights: Weights, library: TaskLibrary, vectors: LibraryVectors, held: list[int]) -> float:
    """Share of queries whose first document is relevant, over the held-out tasks."""
    query_TND = mapped(torch.from_numpy(vectors.query_ND).expand(len(held), -1, -1), weights)
    first_TN = (query_TND @ torch.from_numpy(vectors.document_MD).T).argmax(-1).numpy()
    hits = [
        library.tasks[task].relevant(range(len(first_N)), first_N).diagonal().mean()
        for task, first_N in zip(held, first_TN, strict=True)
    ]
    return float(np.mean(hits))


@pytest.mark.parametrize(
    "generator",
    [
        "core-modulation",
        pytest.param("text-to-lora", marks=pytest.mark.slow),
        pytest.param("drag-and-drop", marks=pytest.mark.slow),
    ],
)
def test_combinations_that_were_never_trained_on_are_found_by_their_description(
    tmp_path: Path, generator: GeneratorName
) -> None:
    """The mechanism: with the right description far above one adapter for all and above another task's description."""
    held = [6, 11]  # two pairs of attributes without one in common
    library, vectors = attribute_world(1, 300)
    kept = [number for number in range(len(library.tasks)) if number not in held]
    training = replace(library, tasks=tuple(library.tasks[number] for number in kept))
    seen = replace(vectors, descriptions=tuple(vectors.descriptions[number] for number in kept))
    config = HypernetworkConfig(
        parts=("description",), tasks_per_step=8, queries_per_task=16, steps=250, learning_rate=5e-3
    )
    schedule = task_schedule(len(kept), config, seed=0)

    def trained(name: GeneratorName, shared: Any = None) -> Network:
        sizes = Architecture(generator=name, dim=SIZE, width=32, directions=8, shared_rank=24, own_rank=16)
        made = Network(sizes, query_vector_layers(SIZE), shared)
        described = [torch.from_numpy(wordings_WD) for wordings_WD in seen.descriptions]
        made.learn_statistics(described, torch.from_numpy(seen.query_ND), torch.from_numpy(seen.document_MD))
        draws = TaskDraws(training, seen, schedule, config)
        train_network(made, query_map_objective(made, draws, seen, config), schedule, config, tmp_path / name, name)
        return made.requires_grad_(False)

    one: Any = trained("multi-task").generator
    made = trained(generator, one.shared.weights())
    test_library, test_vectors = attribute_world(2, 200)

    def of(numbers: list[int]) -> float:
        described = [ConditionVectors(description_D=vectors.descriptions[number][0]) for number in numbers]
        return precision(made(batch_of(described, SIZE)), test_library, test_vectors, held)

    shared = precision(one(torch.zeros(2, 32)), test_library, test_vectors, held)
    right, exchanged = of(held), of(held[::-1])
    assert right > 0.8
    assert right > shared + 0.2
    assert right > exchanged + 0.4


def test_reconstruction_moves_towards_trained_adapters() -> None:
    library = tiny_library()
    vectors = random_vectors(library)
    config = HypernetworkConfig(tasks_per_step=3, queries_per_task=4, steps=60, parts=("description",))
    draws = TaskDraws(library, vectors, task_schedule(3, config, seed=0), config)
    made = Network(
        Architecture(generator="text-to-lora", dim=16, width=16, directions=8, shared_rank=2, own_rank=2),
        query_vector_layers(16),
    )
    generator = torch.Generator().manual_seed(0)
    (layer,) = made.layers
    trained = [
        {layer.name: (torch.randn(2, 16, generator=generator), torch.randn(16, 2, generator=generator))}
        for _ in library.tasks
    ]
    loss_fn = reconstruction_objective(made, draws, trained)
    optimizer = torch.optim.AdamW(made.trainable().values(), 5e-3)
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        losses.append(float(loss_fn(step).loss))
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_what_is_not_given_is_what_was_best_for_the_kind_of_adapter() -> None:
    of_vectors, of_encoder = NetworkConfig(), NetworkConfig(through="encoder", own_rank=4)
    assert (of_vectors.shared_rank, of_vectors.own_rank, of_vectors.learning_rate) == (32, 32, 2e-3)
    assert (of_encoder.shared_rank, of_encoder.own_rank, of_encoder.learning_rate) == (8, 4, 5e-4)
    assert (of_vectors.last_blocks, of_encoder.last_blocks) == (0, 2)
    steps = [config.training(shared=shared) for config in (of_vectors, of_encoder) for shared in (True, False)]
    assert [step.steps for step in steps] == [300, 1500, 200, 400]
    assert [step.temperature for step in steps] == [0.1, 0.1, 0.05, 0.05]
    assert [step.queries_per_task for step in steps] == [64, 64, 8, 8]
    assert [step.sides for step in steps] == ["query", "query", "both", "both"]
    assert NetworkConfig(through="encoder", sides="query").training(shared=False).queries_per_task == 16
    with pytest.raises(UsageError, match="own_rank = -1"):
        NetworkConfig(own_rank=-1)
    with pytest.raises(UsageError, match="last_blocks with a map on the final vector"):
        NetworkConfig(last_blocks=1)
