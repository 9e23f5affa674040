"""A query-vector map on disk: read again, in plain sentence-transformers, by name, and where it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from acclimate.configs import MergeConfig
from acclimate.errors import ModelError, StorageError
from acclimate.models.encoder import Encoder
from acclimate.models.query_map import MAP_FILE, QueryMap, load_query_map
from acclimate.models.query_map_saving import save_query_map
from acclimate.runs.folded import adapted_folder
from acclimate.runs.mergeable_models import read_models
from acclimate.runs.resolve import load, load_pair, resolve
from acclimate.serve.opening import open_service
from tests.models.adapted import TEXTS, write_model


def query_map(encoder: Encoder, seed: int = 0) -> QueryMap:
    generator = torch.Generator().manual_seed(seed)
    A_rD, B_Dr = torch.randn(3, 32, generator=generator) / 4, torch.randn(32, 3, generator=generator) / 4
    source = encoder.source
    return QueryMap(source.id, source.sha256, A_rD, B_Dr, encoder.use, source.files.normalise, {"steps": 3})


def written(tmp_path: Path, family: str = "bert") -> tuple[Encoder, QueryMap, Path]:
    encoder = Encoder.load(str(write_model(tmp_path / "base", family)), device="cpu", dtype="float32")
    made, folder = query_map(encoder), tmp_path / "map"
    folder.mkdir()
    save_query_map(folder, made, encoder)
    return encoder, made, folder


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    encoder, made, folder = written(tmp_path)
    again = load_query_map(folder)
    assert (again.sha256, again.use, again.base_sha256, again.metrics) == (
        made.sha256,
        made.use,
        made.base_sha256,
        {"steps": 3},
    )
    base = str(tmp_path / "base")
    before, after = load_pair(folder, base=base, device="cpu", dtype="float32")
    assert np.array_equal(before.encode(TEXTS, "document"), after.encode(TEXTS, "document"))
    expected = made(encoder.encode(TEXTS, "query"))
    assert np.abs(after.encode(TEXTS, "query") - expected).max() < 1e-6
    assert np.abs(expected - before.encode(TEXTS, "query")).max() > 1e-2
    assert before.space == after.space  # an index of the base's vectors is searched
    assert before.role_fingerprint("document") == after.role_fingerprint("document")
    assert before.role_fingerprint("query") != after.role_fingerprint("query")
    found = resolve(folder, base=base)
    assert found.kind == "map" and found.sha256 != resolve(base).sha256


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_sentence_transformers_gives_the_same_vectors(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plainly loaded, from the folder in which the base's id leads to it."""
    from sentence_transformers import SentenceTransformer

    _, _, folder = written(tmp_path, family)
    ours = load(folder, base=str(tmp_path / "base"), device="cpu", dtype="float32")
    monkeypatch.chdir(tmp_path)  # the base's id is its folder's name
    theirs = SentenceTransformer(str(folder), device="cpu")
    for role, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        assert np.abs(encode(TEXTS) - ours.encode(TEXTS, role)).max() < 1e-5, role


def test_it_is_refused_by_name_where_it_has_no_place(tmp_path: Path) -> None:
    _, _, folder = written(tmp_path)
    with pytest.raises(ModelError, match=r"map is a map on query vectors.*it cannot be merged"):
        read_models([str(folder), str(folder)], MergeConfig(), machine={})
    with pytest.raises(ModelError, match="cannot be merged, folded or exported"):
        adapted_folder(folder)
    from acclimate.configs import RunConfig
    from acclimate.stages.train import _start_folder

    with pytest.raises(ModelError, match="cannot be served"):
        open_service([str(folder)], RunConfig())
    with pytest.raises(ModelError, match="cannot be trained on"):
        _start_folder(str(folder))


def test_another_base_and_damaged_files_are_refused(tmp_path: Path) -> None:
    encoder, made, folder = written(tmp_path)
    other = Encoder.load(str(write_model(tmp_path / "other", "bert", seed=1)), device="cpu", dtype="float32")
    with pytest.raises(ModelError, match="the query-vector map was made for base base"):
        other.with_query_map(made)
    with pytest.raises(ModelError, match=r"was made for base base .*found other"):
        load(folder, base=str(tmp_path / "other"), device="cpu")
    assert encoder.with_query_map(made).query_map is made
    save_file({"A": made.A_rD, "B": made.B_Dr[:8].contiguous()}, folder / MAP_FILE)
    with pytest.raises(ModelError, match=r"holds .* for vectors of 32 dimensions"):
        load_query_map(folder)
    (folder / MAP_FILE).write_bytes(b"nothing")
    with pytest.raises(StorageError, match="cannot be read"):
        load_query_map(folder)
