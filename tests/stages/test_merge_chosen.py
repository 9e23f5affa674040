"""`merge` that chooses on dev: greedy soups and the WiSE-FT curve."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from acclimate.configs import EvaluateConfig, MergeConfig, RunConfig
from acclimate.data.dataset import load_dataset, write_dataset
from acclimate.errors import DataError, UsageError
from acclimate.evaluation.candidates import choose_share, greedy_soup, guard_score, score_on
from acclimate.files import read_json
from acclimate.models.adapter import load_adapter
from acclimate.models.encoder import Encoder
from acclimate.runs.resolve import load as load_encoder
from acclimate.stages.merge import merge
from acclimate.types import SPLITS, Qrels, Split
from tests.stages.worlds import tiny_embedder, write_adapter, write_pairs, write_retrieval


def test_the_greedy_soup_by_hand() -> None:
    # Alone: b 0.6, c 0.5, a 0.4. b is in; b + c falls to 0.55: out; b + a does not fall: in.
    scores = {(0, 0.5, 0.5): 0.55, (0.5, 0.5, 0): 0.6}
    asked = []

    def score(weights: object) -> float:
        asked.append(tuple(weights))  # type: ignore[call-overload]
        return scores[asked[-1]]

    found = greedy_soup(3, score, [0.4, 0.6, 0.5])
    assert asked == [(0, 0.5, 0.5), (0.5, 0.5, 0)]
    assert (found["kept"], found["weights"], found["score"]) == ([1, 0], [0.5, 0.5, 0.0], 0.6)
    assert [(row["model"], row["alone"], row["soup"], row["kept"]) for row in found["tried"]] == [
        (1, 0.6, 0.6, True),
        (2, 0.5, 0.55, False),
        (0, 0.4, 0.6, True),
    ]


def test_the_share_is_the_best_that_forgets_little_enough() -> None:
    points = [
        {"share": share, "domain": domain, "loss": {"general": loss, "other": 0.0}}
        for share, domain, loss in ((0.0, 0.5, 0.0), (0.4, 0.7, 0.01), (0.6, 0.7, 0.015), (1.0, 0.8, 0.1))
    ]
    assert choose_share(points, 0.02)[0] == 0.4  # the best of those within the bound, the nearest to the base
    assert choose_share(points, 0.2)[0] == 1.0
    assert choose_share(points, 0.001)[0] == 0.0
    assert "at most 2 %" in choose_share(points, 0.02)[1]


@pytest.fixture
def world(tmp_path: Path) -> tuple[list[Path], RunConfig]:
    """A run whose dev split is answered by the base, and three adapters: nothing, a little, and a ruin."""
    model = tiny_embedder(tmp_path / "model")
    run = tmp_path / "run"
    data = write_retrieval(run)
    # Half of a document asks for it, on dev; the test split is empty: it must not be looked at.
    queries = {query: " ".join(text.split()[:3]) for query, text in data.queries.items()}
    qrels: dict[Split, Qrels] = {"train": {}, "dev": data.qrels["test"], "test": {}}
    write_dataset(run / "dataset", dataclasses.replace(data, queries=queries, qrels=qrels), [])
    folders = []
    for name, strength in (("good", 0.0), ("fair", 0.05), ("bad", 1.0)):
        folders.append(tmp_path / name)
        write_adapter(tmp_path / name / "adapter", model, strength=strength)
    config = RunConfig(model=str(model), device="cpu", dtype="float32", evaluate=EvaluateConfig(sign_flips=200))
    return folders, config


def pool(config: RunConfig) -> dict[str, int]:
    return {"documents": config.merge.pool_documents, "seed": config.seed}


def test_a_greedy_soup_keeps_what_does_not_hurt_on_dev(tmp_path: Path, world: tuple[list[Path], RunConfig]) -> None:
    folders, config = world
    config = dataclasses.replace(config, merge=MergeConfig(method="greedy-soup"))
    report = merge(folders[::-1], tmp_path / "soup", config, data=tmp_path / "run")
    soup = report["soup"]
    assert soup["split"] == "dev" and soup["measure"] == "ndcg@10"
    assert str(folders[0]) in soup["kept"] and str(folders[2]) not in soup["kept"]
    assert [row["alone"] for row in soup["tried"]] == sorted((row["alone"] for row in soup["tried"]), reverse=True)
    # The folder gives the score that is reported: measured again, from disk.
    judge = score_on(
        load_dataset(tmp_path / "run" / "dataset"),
        "dev",
        Encoder.load(config.base_model, **config.loading),
        **pool(config),
    )
    found = load_encoder(tmp_path / "soup", base=config.model, device="cpu", dtype="float32")
    assert judge(found) == pytest.approx(soup["score"], abs=1e-6)
    assert "left out" in (tmp_path / "soup" / "report.html").read_text()
    assert "Chosen greedily by ndcg@10 on the dev split" in (tmp_path / "soup" / "README.md").read_text()


def test_a_guard_is_measured_on_all_but_its_test_split(tmp_path: Path, world: tuple[list[Path], RunConfig]) -> None:
    (_, _, bad), config = world
    data, base = write_retrieval(tmp_path / "general"), Encoder.load(config.base_model, **config.loading)
    encoder = load_encoder(bad, base=config.model, device="cpu", dtype="float32")
    queries = sorted(data.qrels["test"])
    thirds = {
        split: {query: data.qrels["test"][query] for query in queries[part::3]} for part, split in enumerate(SPLITS)
    }
    whole = dataclasses.replace(data, qrels=thirds)
    split, score = guard_score(whole, base, **pool(config))
    both = dataclasses.replace(data, qrels={"test": thirds["train"] | thirds["dev"]})
    assert split == "train and dev"
    assert score(encoder) == score_on(both, "test", base, **pool(config))(encoder)
    assert score(encoder) != score_on(whole, "test", base, **pool(config))(encoder)
    assert guard_score(data, base, **pool(config))[0] == "test"


def test_the_curve_from_the_base_to_the_adapter(tmp_path: Path, world: tuple[list[Path], RunConfig]) -> None:
    folders, config = world
    write_pairs(tmp_path / "general")
    config = dataclasses.replace(
        config,
        merge=MergeConfig(method="interpolate", curve=(0.5, 1.0)),
        evaluate=EvaluateConfig(guard=(str(tmp_path / "general" / "dataset"),), guard_bound=0.02),
    )
    report = merge([folders[2]], tmp_path / "out", config, data=tmp_path / "run")
    curve = report["curve"]
    assert [point["share"] for point in curve["points"]] == [0.0, 0.5, 1.0]  # the base is always there
    base = Encoder.load(config.base_model, **config.loading)
    judge = score_on(load_dataset(tmp_path / "run" / "dataset"), "dev", base, **pool(config))
    assert judge(base) == pytest.approx(curve["points"][0]["domain"], abs=1e-6)
    live = load_encoder(folders[2], base=config.model, device="cpu", dtype="float32")
    assert judge(live) == pytest.approx(curve["points"][2]["domain"], abs=1e-6)
    losses = [point["loss"]["general"] for point in curve["points"]]
    values = [point["guard"]["general"] for point in curve["points"]]
    assert losses == pytest.approx([(values[0] - value) / abs(values[0]) for value in values])
    # Interpolation of an adapter scales its update, exactly.
    whole, part = (load_adapter(folder, config.model) for folder in (folders[2] / "adapter", tmp_path / "out"))
    for name, (A, B) in part.modules.items():
        update = whole.modules[name][1] @ whole.modules[name][0]
        assert torch.allclose(B @ A, curve["chosen"] * update, atol=1e-4)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<svg" in page and "<script" not in page and "The domain against general" in page


def test_data_without_a_dev_split_is_refused_and_nothing_is_written(
    tmp_path: Path, world: tuple[list[Path], RunConfig]
) -> None:
    folders, config = world
    config = dataclasses.replace(config, merge=MergeConfig(method="greedy-soup"))
    write_retrieval(tmp_path / "other")  # has a test split only, which is not looked at
    with pytest.raises(DataError, match="the dev split holds no query"):
        merge(folders, tmp_path / "soup", config, data=tmp_path / "other")
    with pytest.raises(UsageError, match=r"holds no dataset.*--data"):
        merge(folders, tmp_path / "soup", config)
    with pytest.raises(UsageError, match="greedy-soup of 1 models"):
        merge(folders[:1], tmp_path / "soup", config, data=tmp_path / "run")
    assert not (tmp_path / "soup").exists()


def test_a_second_start_keeps_what_is_there(tmp_path: Path, world: tuple[list[Path], RunConfig]) -> None:
    folders, config = world
    config = dataclasses.replace(config, merge=MergeConfig(method="greedy-soup"))
    first = merge(folders, tmp_path / "soup", config, data=tmp_path / "run")
    assert merge(folders, tmp_path / "soup", config, data=tmp_path / "run") == first
    inputs = read_json(tmp_path / "soup" / "inputs.json")
    assert set(inputs) == {"model 1", "model 2", "model 3", "dataset", "trained_on"}
