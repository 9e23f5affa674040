"""LoRA on an embedding model of texts beside a projection of images: trained, saved, read by others, searched.

Random weights: what is shown is that the way is whole, that what is read again gives the same vectors, and that nothing
of a run is changed unasked.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

import acclimate
from acclimate.cli import image_tables
from acclimate.configs import RunConfig
from acclimate.errors import AcclimateError, UsageError
from acclimate.models.encoder import Encoder
from acclimate.models.projection import ProjectedImages, load_projection
from acclimate.runs.images import TEXTS_FOLDER
from acclimate.stages import train_projection
from tests.image_world import QUICK_LORA, tiny_clip_vision, tiny_graph, write_class_folders
from tests.models.adapted import random_adapter
from tests.models.tiny import as_sentence_transformer
from tests.serve.http.world import write_run
from tests.tiny_run import write_tiny_bert, write_tiny_retrieval

QUICK: dict[str, Any] = {**QUICK_LORA, "image_lora": "texts"}
CONFIG = RunConfig(device="cpu", dtype="float32")
WORDS = ["w0 w20", "w3", "w3 w4 w9 w10 w11"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a text model with prompts, and a frozen image tower."""
    folder = tmp_path_factory.mktemp("text-lora")
    as_sentence_transformer(write_tiny_bert(folder / "bert"))
    tiny_graph(folder / "tower")
    write_class_folders(folder / "images", classes=5, images=6)
    write_tiny_retrieval(folder / "texts" / "dataset")
    return folder


def adapt(world: Path, run: Path, **settings: Any) -> Any:
    named = {"model": str(world / "bert"), "image_model": str(world / "tower")}
    return acclimate.adapt(world / "images", out=run, config=CONFIG, **QUICK | named | settings)


@pytest.fixture(scope="module")
def made(world: Path) -> Path:
    """A run whose texts' model was trained beside a frozen tower; queries have a prompt of their own."""
    adapt(world, world / "run", query_prompt="w50 ", image_epochs=6, guard=[str(world / "texts" / "dataset")])
    return world / "run"


def write_pages(path: Path) -> None:
    pages = [{"text": f"w{number} w{number + 20} w{number + 9}"} for number in range(5)]
    path.write_text("".join(json.dumps(page) + "\n" for page in pages))


def texts_of(run: Path) -> Any:
    return acclimate.load(str(run), device="cpu", dtype="float32")


def test_the_run_s_texts_and_images_lie_in_one_new_space(made: Path, world: Path) -> None:
    texts, base = texts_of(made), acclimate.load(str(world / "bert"), device="cpu", dtype="float32")
    images = ProjectedImages.open(made / "projection", device="cpu")
    assert images.space == texts.space != base.space
    assert not np.allclose(texts.encode(WORDS), base.encode(WORDS), atol=1e-3)
    assert (made / "adapter").resolve().parent == (made / "adapters").resolve()
    assert texts.use.prompts.prompt("query") == "w50 "


def test_others_read_the_adapter(made: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_of(made)
    monkeypatch.chdir(world)  # the base's name leads to it
    tokens = AutoTokenizer.from_pretrained(world / "bert")(WORDS, padding=True, return_tensors="pt")
    model = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(world / "bert"), made / "adapter").eval()
    with torch.inference_mode():
        hidden_NLD = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    mask_NL1 = tokens["attention_mask"][..., None]
    pooled = torch.nn.functional.normalize((hidden_NLD * mask_NL1).sum(1) / mask_NL1.sum(1), dim=1)
    np.testing.assert_allclose(texts.encode(WORDS), pooled.numpy(), atol=1e-5)
    found = SentenceTransformer(str(made / "adapter"), device="cpu").encode(WORDS, normalize_embeddings=True)
    np.testing.assert_allclose(texts.encode(WORDS), found, atol=1e-5)


def test_what_was_measured_says_what_it_did_to_searches_among_texts(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((made / "report.json").read_text())
    report = summary["images"]
    assert report["texts_trained"] and {"seen", "unseen"} <= set(report)
    (row,) = report["guard"]
    assert row["name"] == "dataset" and row["queries"] == 8
    assert row["base"]["ndcg@10"] != row["adapted"]["ndcg@10"]
    page = (made / "report.html").read_text()
    assert "has to be built again" in page and "Guard data" in page
    image_tables.show_images(summary, made)
    assert "searches among texts, dataset: ndcg@10" in capsys.readouterr().out


def test_an_index_holds_both(made: Path, world: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made, run, symlinks=True)
    write_pages(tmp_path / "pages.jsonl")
    acclimate.index(run, tmp_path / "pages.jsonl")
    assert acclimate.index(run, images=True)["pictures"] == 30
    picture = world / "images" / "3" / "0.jpg"
    found = acclimate.search_by_picture(run, picture, top=5)
    vector = ProjectedImages.open(run / "projection", device="cpu").encode([picture.read_bytes()])[0]
    first = found["hits"][0]
    np.testing.assert_allclose(first["score"], texts_of(run).encode([first["text"]])[0] @ vector, atol=1e-3)
    assert found["pictures"][0]["score"] > 0.99
    words = acclimate.search_pictures(run, "w3 w23", top=1)["pictures"][0]
    assert words["metadata"]["class"] == words["text"]


def test_an_older_index_is_refused_and_built_again(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    frozen = {name: value for name, value in QUICK.items() if name not in ("image_lora", "rank")}
    named = {"model": str(world / "bert"), "image_model": str(world / "tower")}
    acclimate.adapt(world / "images", out=run, config=CONFIG, **frozen | named)
    write_pages(tmp_path / "pages.jsonl")
    acclimate.index(run, tmp_path / "pages.jsonl", model=str(world / "bert"))
    acclimate.index(run, images=True)
    capsys.readouterr()
    adapt(world, run)
    told = capsys.readouterr().err
    assert "nothing here measures them: --guard DATA would" in told
    assert f"acclimate index {run} --reencode" in told
    with pytest.raises(UsageError, match="space"):
        acclimate.search_by_picture(run, world / "images" / "3" / "0.jpg")
    acclimate.reencode_index(run)
    assert acclimate.index(run, images=True)["pictures"] == 30
    found = acclimate.search_by_picture(run, world / "images" / "3" / "0.jpg")
    assert len(found["hits"]) == len(found["pictures"]) == 5


def test_a_tower_and_the_texts_train_together(world: Path, tmp_path: Path) -> None:
    run, tower = tmp_path / "run", tiny_clip_vision(tmp_path / "tower")
    adapt(world, run, image_model=str(tower), image_lora="both")
    projection = load_projection(run / "projection")
    assert projection.lora is not None and projection.lora.sides == "image"
    beside = run / "projection" / TEXTS_FOLDER / "adapter_model.safetensors"
    assert beside.read_bytes() == (run / "adapter" / beside.name).read_bytes()
    assert projection.space == texts_of(run).space
    for modules in (projection.lora.modules, texts_of(run).adapter.modules):
        assert max(float(B.abs().max()) for _, B in modules.values()) > 0


def test_memory_changes_nothing(world: Path, tmp_path: Path) -> None:
    """Chunks whose activations do not fit together are computed twice, with the same gradient."""
    found = []
    for name, memory in (("ample", 1.0), ("little", 1e-5)):
        settings = {"image_epochs": 1, "image_batch_size": 8, "gradient_checkpointing": name == "little"}
        adapt(world, tmp_path / name, activation_memory_gb=memory, **settings)
        found.append(texts_of(tmp_path / name).encode(WORDS))
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)


@pytest.mark.slow
def test_a_second_start_keeps_all_and_a_stopped_one_goes_on(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapt(world, tmp_path / "whole", image_epochs=8)
    whole = texts_of(tmp_path / "whole")
    capsys.readouterr()
    adapt(world, tmp_path / "whole", image_epochs=8)
    assert capsys.readouterr().err.count("is kept: it is up to date") == 5

    run = tmp_path / "stopped"
    loss_of, steps = train_projection.train_head, []

    def stopping(*given: Any) -> Any:
        from acclimate.training import projection_training as training

        made_loss = training.tower_objective

        def objective(*arguments: Any) -> Any:
            loss = made_loss(*arguments)

            def step(number: int) -> Any:
                steps.append(number)
                if len(steps) == 6:
                    raise KeyboardInterrupt
                return loss(number)

            return step

        monkeypatch.setattr(training, "tower_objective", objective)
        return loss_of(*given)

    monkeypatch.setattr(train_projection, "train_head", stopping)
    with pytest.raises(AcclimateError, match="stopped at step 5"):
        adapt(world, run, image_epochs=8)
    monkeypatch.undo()
    capsys.readouterr()
    adapt(world, run, image_epochs=8)
    assert "goes on from step" in capsys.readouterr().err
    assert texts_of(run).space == whole.space  # bit by bit the same


def test_it_goes_on_from_the_adapter_of_another_run_and_watches_its_texts(world: Path, tmp_path: Path) -> None:
    base = Encoder.load(str(world / "bert"), device="cpu", dtype="float32")
    first = tmp_path / "first"
    write_run(first, base, random_adapter(base, dim=base.use.dim))
    (first / "adapter" / "settings.json").write_text(json.dumps({"model": str(world / "bert")}))
    shutil.copytree(world / "texts" / "dataset", first / "dataset")
    rank = texts_of(first).adapter.rank
    targets = sorted(texts_of(first).adapter.modules)
    before = (first / "adapter" / "adapter_model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="has an adapter of its texts"):
        adapt(world, first)
    run = tmp_path / "run"
    result = adapt(world, run, start_adapter=str(first), rank=rank, targets=targets, image_learning_rate=1e-9)
    np.testing.assert_allclose(texts_of(run).encode(WORDS), texts_of(first).encode(WORDS), atol=1e-3)
    (row,) = result["images"]["guard"]
    np.testing.assert_allclose(row["base"]["ndcg@10"], row["adapted"]["ndcg@10"], atol=0.05)
    assert (first / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_an_adapter_of_queries_alone_is_not_trained_on(world: Path, tmp_path: Path) -> None:
    base = Encoder.load(str(world / "bert"), device="cpu", dtype="float32")
    write_run(tmp_path / "first", base, random_adapter(base, dim=base.use.dim, sides="query"))
    with pytest.raises(UsageError, match="adapts queries only"):
        adapt(world, tmp_path / "run", start_adapter=str(tmp_path / "first"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_lora": "both"}, "an ONNX graph, which does not train"),
        ({"start_adapter": "nowhere"}, "holds no adapter"),
        ({"image_lora": "image", "guard": ["x"]}, "does not read guard"),
    ],
)
def test_what_cannot_train_is_refused(settings: dict[str, Any], message: str, world: Path, tmp_path: Path) -> None:
    with pytest.raises(AcclimateError, match=message):
        adapt(world, tmp_path / "run", **settings)
    assert not (tmp_path / "run" / "adapter").exists()
