"""Held-out tasks: pairs as a user has them, the curve and the choices summed up by hand, mixtures by description."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acclimate.core.lora import attach_weights
from acclimate.data.relevance import ABSENT, RelevanceTask, TaskLibrary
from acclimate.data.task_library import SplitLibrary, TaskFacts
from acclimate.evaluation.task_scores import measured_queries
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import ConditionVectors
from acclimate.models.hypernetwork.layers import layers_of, of_task
from acclimate.training import held_out_tasks
from acclimate.training.chosen_by_pairs import Chosen, chosen_summary
from acclimate.training.held_out_tasks import HeldOutTasks, evenly_drawn, held_out
from acclimate.training.own_adapters import mixed
from acclimate.training.quality_curve import GENERATED, SCRATCH, Point, curve_summary, few_pairs
from acclimate.training.task_draws import encode_library
from tests.models.adapted import write_model
from tests.training.test_hypernetwork import tiny_library


def test_a_user_knows_one_document_of_each_query() -> None:
    keys = np.repeat(np.arange(5), 4)
    texts = tuple(map(str, range(20)))
    library = TaskLibrary(texts, texts, (RelevanceTask("t", ("d",), keys, keys),))
    (known,) = few_pairs(library, 6, seed=0).tasks
    assert len(known.usable) == 6
    for query in known.usable.tolist():
        (document,) = np.flatnonzero(known.relevant([query], np.arange(20))[0])
        assert keys[document] == keys[query]
    assert (known.document_M != ABSENT).sum() <= 6


@pytest.mark.parametrize("documents_too", [False, True])
def test_an_adapter_of_the_last_block_is_measured_as_the_whole_model_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents_too: bool
) -> None:
    encoder = Encoder.load(str(write_model(tmp_path / "base", "bert")), device="cpu", dtype="float32")
    library, generator = tiny_library(), torch.Generator().manual_seed(1)
    few = tuple(replace(task, candidates=np.arange(place, 12)) for place, task in enumerate(library.tasks))
    library = replace(library, tasks=few)
    vectors = encode_library(encoder, library)
    facts = tuple(TaskFacts(task.name, "", "", task.name, "new-definition") for task in library.tasks)
    world = HeldOutTasks(encoder, SplitLibrary(library, library, facts), vectors, vectors, 0, tmp_path / "kept")
    adapters = [
        {
            layer.name: (
                torch.randn(2, layer.d_in, generator=generator),
                torch.randn(layer.d_out, 2, generator=generator),
            )
            for layer in layers_of(encoder.model, last_blocks=1)
        }
        for _ in facts
    ]
    seen: list[tuple[Any, Any]] = []

    def noted(task: Any, _queries: Any, query_ND: Any, document_MD: Any) -> str:
        seen.append((query_ND, document_MD))
        return task.name

    monkeypatch.setattr(held_out_tasks, "score_task", noted)
    assert [*world.score(adapters, documents_too).values()] == [task.name for task in library.tasks]
    for adapter, task, (query_ND, document_MD) in zip(adapters, library.tasks, seen, strict=True):
        whole = encoder.fork()
        attach_weights(whole.model, adapter)
        expected = whole.encode([library.queries[query] for query in measured_queries(task)], "query")
        assert np.allclose(query_ND, expected, atol=1e-5)
        documents = whole.encode(library.documents) if documents_too else vectors.document_MD
        assert np.allclose(document_MD, documents[task.ranked()], atol=1e-5)
    assert not np.allclose(seen[0][0], seen[1][0], atol=1e-2)
    alone = seen[:2]
    seen.clear()
    found = world.score([adapters[0], adapters[1], adapters[0]], documents_too)  # the first one is for two tasks
    assert [*found.values()] == [task.name for task in library.tasks]
    # Measured by adapter: the first task, the third, the second.
    assert np.allclose(seen[0][0], alone[0][0], atol=1e-5) and np.allclose(seen[2][0], alone[1][0], atol=1e-5)
    whole = encoder.fork()
    attach_weights(whole.model, adapters[0])
    queries = [library.queries[query] for query in measured_queries(library.tasks[2])]
    assert np.allclose(seen[1][0], whole.encode(queries, "query"), atol=1e-5)


def test_few_are_drawn_at_even_distances() -> None:
    assert evenly_drawn(range(10), 3) == [0, 4, 9]
    assert evenly_drawn([5, 6], 3) == [5, 6]


def test_half_as_many_are_measured_where_documents_are_encoded_for_each() -> None:
    library = tiny_library()
    facts = tuple(TaskFacts(str(n), "", "", "", "new-definition") for n in range(100))
    split = SplitLibrary(library, library, facts)
    assert (len(held_out(split)), len(held_out(split, documents_too=True))) == (60, 30)


def test_choices_are_summed_up_by_group_and_number_of_pairs() -> None:
    found = [
        Chosen("a", 8, "base", 0.0, 0.1),
        Chosen("b", 8, "generated", -0.06, 0.02),
        Chosen("c", 8, "generated", 0.03, 0.03),
        *(Chosen(name, pairs, "generated", 0.05, 0.05) for name in "abc" for pairs in (16, 32)),
    ]
    summary = chosen_summary(found, {"all": ["a", "b", "c"], "some": ["a", "b"]}, flips=63, confidence=0.95, seed=0)
    assert summary["all"]["8"]["gain"]["value"] == pytest.approx(-0.01)
    assert summary["all"]["8"]["kept_bar"] and summary["all"]["8"]["worse"] == 1
    assert summary["all"]["8"]["chosen"] == {"generated": 2, "base": 1} and summary["all"]["8"]["best_gain"] == 0.05
    assert not summary["some"]["8"]["kept_bar"]  # -.03 on average
    assert summary["some"]["32"]["gain"]["value"] == pytest.approx(0.05)


def test_the_curve_has_a_mean_for_each_start_pairs_and_steps() -> None:
    points = [
        Point("a", "new-definition", SCRATCH, 16, 10, 1.0, 0.2),
        Point("b", "known-definition", SCRATCH, 16, 10, 3.0, 0.4),
        Point("c", "domain", GENERATED, 16, 10, 5.0, 0.7),
    ]
    summary = curve_summary(points)
    row = {"start": SCRATCH, "pairs": 16, "steps": 10, "tasks": 2, "ndcg": 0.3, "seconds": 2.0}
    assert summary["known attributes"] == [row]
    assert [one["ndcg"] for one in summary["domain"]] == [0.7]


def test_the_nearest_description_gives_its_adapter() -> None:
    rows = np.eye(4, dtype=np.float32)
    adapters = [{"layer": (torch.full((1, 4), float(number)), torch.ones(4, 1))} for number in range(3)]
    asked = [ConditionVectors(description_D=rows[2] + 0.1 * rows[3])]
    weights = mixed("nearest", asked, [rows[number : number + 1] for number in range(3)], adapters, rank=2)
    A_rI, B_Or = of_task(weights, 0)["layer"]
    assert torch.allclose(B_Or @ A_rI, torch.full((4, 4), 2.0), atol=1e-5)
