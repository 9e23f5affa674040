"""A projection: unit vectors in the texts' space, written and read again, for the tower that it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.errors import ModelError, StorageError
from acclimate.models.image_encoder import ImageEncoder
from acclimate.models.projection import (
    ProjectedImages,
    Projection,
    ProjectionHead,
    load_projection,
    project,
    save_projection,
)
from acclimate.text_use import SpaceId
from tests.image_world import encoded, picture, tiny_graph

SPACE = SpaceId("a" * 64, None, "passage: ", "mean", 8, False, "b" * 64)
PICTURES = [encoded(picture(number, 0)) for number in range(4)]


def saved(folder: Path, tower: Path) -> Projection:
    torch.manual_seed(0)
    encoder = ImageEncoder.load(str(tower), device="cpu")
    head = ProjectionHead(48, 8, "mlp", 16, dropout=0.5)
    head.standardise_by(torch.from_numpy(encoder.features(PICTURES)))
    projection = Projection(
        head=head.eval(),
        tower_id=encoder.tower.id,
        tower_sha256=encoder.tower.sha256,
        tower_fingerprint=encoder.tower.fingerprint,
        space=SPACE,
        metrics={"steps": 3},
    )
    folder.mkdir()
    save_projection(folder, projection)
    return projection


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    tower = tiny_graph(tmp_path / "tower")
    written = saved(tmp_path / "projection", tower)
    images = ProjectedImages.open(tmp_path / "projection", image_model=str(tower), device="cpu")
    assert images.space == SPACE and images.projection.metrics == {"steps": 3}
    vectors = images.encode(PICTURES)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors, project(written.head, images.encoder.features(PICTURES)))


def test_another_tower_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "projection", tiny_graph(tmp_path / "tower"))
    tiny_graph(tmp_path / "other", features=47)
    with pytest.raises(ModelError, match=r"other weights.*--image-model"):
        ProjectedImages.open(tmp_path / "projection", image_model=str(tmp_path / "other"), device="cpu")
    with pytest.raises(ModelError, match="was not found"):  # its own name is that of no folder here
        ProjectedImages.open(tmp_path / "projection", device="cpu")


def test_damage_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "projection", tiny_graph(tmp_path / "tower"))
    facts = json.loads((tmp_path / "projection" / "acclimate.json").read_text())
    changed = {**facts, "head": {**facts["head"], "width": 17}}
    (tmp_path / "projection" / "acclimate.json").write_text(json.dumps(changed))
    with pytest.raises(ModelError, match="do not fit together"):
        load_projection(tmp_path / "projection")
    (tmp_path / "projection" / "acclimate.json").write_text(json.dumps({**facts, "kind": "reranker"}))
    with pytest.raises(ModelError, match="kind 'reranker'"):
        load_projection(tmp_path / "projection")
    (tmp_path / "projection" / "acclimate.json").write_text(json.dumps(facts))
    (tmp_path / "projection" / "projection.safetensors").write_bytes(b"x")
    with pytest.raises(StorageError, match="cannot be read"):
        load_projection(tmp_path / "projection")
    with pytest.raises(StorageError, match="holds no projection"):
        load_projection(tmp_path)


@pytest.mark.parametrize(("head", "layers"), [("linear", 1), ("mlp", 2)])
def test_heads_standardise_their_features(head: str, layers: int) -> None:
    made = ProjectionHead(5, 3, head, 7)  # type: ignore[arg-type]
    features = torch.randn(50, 5) * 9 + 4
    made.standardise_by(features)
    assert len(made.layers) == layers
    standard = (features - made.mean_F) / made.spread_F
    torch.testing.assert_close(standard.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(made(features).norm(dim=1), torch.ones(50))
