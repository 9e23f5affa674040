"""Images from a folder to a report, and an index of texts searched by a picture, with towers of true architectures."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import acclimate
from acclimate.cli.main import main
from acclimate.configs import RunConfig
from acclimate.errors import UsageError
from acclimate.models.image_encoder import ImageEncoder
from acclimate.models.projection import ProjectedImages
from tests.image_world import (
    encoded,
    picture,
    tiny_clip_vision,
    tiny_dinov2,
    tiny_graph,
    tiny_siglip_vision,
    write_class_folders,
)
from tests.models.tiny import as_sentence_transformer
from tests.tiny_run import write_tiny_bert

QUICK = ("--image-epochs", "15", "--image-batch-size", "32", "--image-learning-rate", "0.01", "--sign-flips", "200")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a text model, an image tower, and a run `run` on them."""
    folder = tmp_path_factory.mktemp("images")
    as_sentence_transformer(write_tiny_bert(folder / "bert"))
    write_class_folders(folder / "images")
    tiny_graph(folder / "tower")
    adapt(folder, "run", "tower")
    return folder


def adapt(folder: Path, run: str, tower: str, *more: str) -> Path:
    given = (
        "--model",
        str(folder / "bert"),
        "--image-model",
        str(folder / tower),
        "--device",
        "cpu",
        "--dtype",
        "float32",
    )
    main(["adapt", str(folder / "images"), "--out", str(folder / run), *given, *QUICK, *more])
    return folder / run


def test_the_run_has_its_parts_and_its_page(world: Path) -> None:
    run = world / "run"
    parts = {"images", "image_negatives", "projection", "image_evaluation"}
    assert parts <= {path.name for path in run.iterdir()}
    summary = json.loads((run / "report.json").read_text())["images"]
    assert summary["dataset"]["counts"]["held_out"] == 2
    assert summary["seen"]["class_accuracy"]["value"] > 0.8
    assert (
        summary["seen"]["text_to_image"]["precision@10"]["value"]
        > summary["seen"]["text_to_image"]["precision@10"]["chance"]
    )
    assert {"class_accuracy", "image_to_image", "image_to_image_by_tower"} <= set(summary["unseen"])
    assert 0 <= summary["all"]["harmonic_mean"] <= 1
    among_all = summary["all"]["text_to_image"]["precision@10"]
    assert among_all["chance"] < summary["unseen"]["text_to_image"]["precision@10"]["chance"]
    page = (run / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") > 20
    assert "img-src data:" in page and not re.search(r"(?:src|href)=.?http", page)


def test_a_second_start_keeps_everything(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapt(world, "run", "tower")
    said = capsys.readouterr().err
    assert said.count("is kept: it is up to date") == 4


def test_another_setting_runs_what_depends_on_it(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapt(world, "other", "tower", "--head", "linear", "--image-negatives", "0")
    capsys.readouterr()
    adapt(world, "other", "tower", "--head", "mlp", "--image-negatives", "0")
    said = capsys.readouterr().err
    assert "images is kept" in said and "images.head changed" in said
    assert not (world / "other" / "image_negatives").exists()


def test_the_space_is_that_of_the_texts(world: Path) -> None:
    images = ProjectedImages.open(world / "run" / "projection", device="cpu")
    assert images.space == acclimate.load(str(world / "bert"), device="cpu", dtype="float32").space


def test_an_index_of_texts_answers_a_picture(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = world / "corpus.jsonl"
    rows = [{"_id": f"page {n}", "text": f"w{n} w{n + 20}", "kind": n % 2} for n in range(8)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = str(world / "run")
    main(["index", run, str(corpus)])
    dataset = json.loads((world / "run" / "images" / "groups.jsonl").read_text().splitlines()[0])
    assert dataset["name"] == "w0 w20"
    groups = [json.loads(line) for line in (world / "run" / "images" / "groups.jsonl").read_text().splitlines()]
    seen = next(number for number, group in enumerate(groups) if not group["held_out"])
    (world / "query.png").write_bytes(encoded(picture(seen, 999), "PNG"))
    capsys.readouterr()
    main(["search", run, "--image", str(world / "query.png"), "--top", "3", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["mode"] == "dense" and len(found["hits"]) == 3
    assert found["hits"][0]["id"] == f"page {seen}"
    main(["search", run, "--image", str(world / "query.png"), "--filter", f"kind == {1 - seen % 2}", "--json"])
    kinds = {hit["metadata"]["kind"] for hit in json.loads(capsys.readouterr().out)["hits"]}
    assert kinds == {1 - seen % 2}
    main(["search", run, "--image", str(world / "query.png")])
    assert f"page {seen}" in capsys.readouterr().out


def test_an_index_of_another_space_is_refused(world: Path, tmp_path: Path) -> None:
    other = as_sentence_transformer(write_tiny_bert(tmp_path / "bert", initializer_range=0.3))
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "w1 w2"}\n')
    acclimate.index(tmp_path / "run", tmp_path / "corpus.jsonl", model=str(other), device="cpu", dtype="float32")
    with pytest.raises(UsageError, match="holds vectors of another space"):
        acclimate.search_by_picture(
            world / "run", world / "images" / "0" / "0.jpg", index_at=str(tmp_path / "run" / "index"), device="cpu"
        )


def test_a_run_s_own_pictures_are_found(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = acclimate.search_pictures(world / "run", "w3 w23", top=4)
    assert len(found["images"]) == 4 and found["texts"][0]["text"] == "w3 w23"
    main(["search", str(world / "run"), "w3 w23", "--images"])
    assert "w3 w23" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search", "{run}"), "a search has a query or a picture"),
        (("search", "{run}", "w1", "--image", "x.jpg"), "a search has a query or a picture"),
        (("search", "{run}", "--image", "x.jpg"), "x.jpg: no such file"),
        (("search", "{run}", "--image", "{run}/config.toml"), "no image"),
        (("search", "{run}", "--image", "x.jpg", "--mode", "lexical"), "--mode in a search by or for pictures"),
        (
            ("adapt", "{images}", "--out", "new", "--image-model", "{tower}", "--rank", "4"),
            "adapt on images does not read",
        ),
        (
            ("adapt", "{images}", "--out", "new", "--image-model", "{tower}", "--dry-run"),
            "--dry-run with --image-model",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    words: tuple[str, ...],
    message: str,
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"run": world / "run", "images": world / "images", "tower": world / "tower"}
    with pytest.raises(SystemExit) as stopped:
        main([word.format(**places) for word in words])
    assert stopped.value.code in (2, 3)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("write", [tiny_clip_vision, tiny_siglip_vision, tiny_dinov2])
def test_towers_of_true_architectures(write: Callable[[Path], Path], world: Path, tmp_path: Path) -> None:
    """Random weights: what is shown is that the way is whole, and that the vectors are those of transformers' tower."""
    tower = write(tmp_path / "tower")
    result = acclimate.adapt(
        world / "images",
        out=tmp_path / "run",
        config=RunConfig(device="cpu", dtype="float32"),
        model=str(world / "bert"),
        image_model=str(tower),
        image_epochs=2,
        image_batch_size=32,
        sign_flips=200,
    )
    assert set(result["images"]) >= {"seen", "unseen", "all"}
    images = ProjectedImages.open(tmp_path / "run" / "projection", device="cpu")
    data = [(world / "images" / "0" / f"{number}.jpg").read_bytes() for number in range(3)]
    features = ImageEncoder.load(str(tower), device="cpu").features(data)
    again = images.projection.head(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(images.encode(data), again, atol=1e-5)


def test_a_trained_class_without_dev_images_counts_for_the_offset(world: Path, tmp_path: Path) -> None:
    """Only one class has dev images; the cosines of all trained ones are compared all the same."""
    rows = []
    for path in sorted((world / "images").glob("*/*.jpg")):
        number, seed = int(path.parent.name), int(path.stem)
        split = "test" if seed > 9 else "val" if number in (0, 1, 2) and seed > 6 else "train"
        rows.append({"image": str(path), "class": number, "split": split})
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rows" / "classes.json").write_bytes((world / "images" / "classes.json").read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # the mean of no texts
        result = acclimate.adapt(
            tmp_path / "rows",
            out=tmp_path / "run",
            config=RunConfig(device="cpu", dtype="float32"),
            model=str(world / "bert"),
            image_model=str(world / "tower"),
            image_epochs=2,
            sign_flips=100,
            held_out_classes=1,
        )
    balanced, mild = result["images"]["all"]["calibrated"].values()
    assert 0 <= mild["offset"] < 1 and 0 <= balanced["offset"] < 1
