"""How texts become vectors as one value, and the space that document vectors lie in."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.errors import ModelError
from acclimate.models.encoder import Encoder
from acclimate.prompts import Prompts
from acclimate.text_use import TextUse
from acclimate.types import Sides
from tests.models.adapted import random_adapter, write_model

USES = st.builds(
    TextUse,
    prompts=st.builds(Prompts, st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text())),
    pooling=st.sampled_from(["mean", "cls", "last"]),
    dim=st.integers(1, 4096),
    max_tokens=st.integers(1, 40_000),
    lowercase=st.booleans(),
)


@given(USES)
def test_written_and_read_again_it_is_the_same(use: TextUse) -> None:
    assert TextUse.from_json(use.to_json(), "here") == use


def test_folders_written_before_lowercase_was_recorded_are_read() -> None:
    use = TextUse(Prompts(), "mean", 8, 16)
    older = {name: value for name, value in use.to_json().items() if name != "lowercase"}
    assert TextUse.from_json(older, "here") == use
    with pytest.raises(ModelError, match=r"here: pooling is 'max'.*mean, cls, last"):
        TextUse.from_json(older | {"pooling": "max"}, "here")


def test_settings_change_only_what_they_name() -> None:
    use = TextUse(Prompts({"": "q: "}, {"": "d: "}), "mean", 32, 64)
    assert use.changed() == use == use.changed(dim=None, query_prompt=None, tasks={})
    changed = use.changed(dim=8, max_tokens=9, query_prompt="")
    assert changed == TextUse(Prompts({"": ""}, {"": "d: "}), "mean", 8, 9)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder: Path = write_model(tmp_path_factory.mktemp("space") / "base", "bert")
    return Encoder.load(str(folder), device="cpu", dtype="float32")


def test_a_space_is_made_of_the_document_side_only(base: Encoder) -> None:
    def used(**changes: object) -> Encoder:
        other = base.for_task(None)
        other.use = dataclasses.replace(base.use, **changes)  # type: ignore[arg-type]
        return other

    prompts = base.use.prompts
    same = [used(max_tokens=9), used(prompts=prompts.with_defaults(query="another: "))]
    assert {encoder.space.digest for encoder in same} == {base.space.digest}
    assert len({encoder.fingerprint for encoder in (base, *same)}) == 3  # keys of stored vectors do know them
    others = [used(dim=16), used(pooling="cls"), used(prompts=prompts.with_defaults(document="another: "))]
    assert len({encoder.space.digest for encoder in (base, *others)}) == 4
    assert base.space.differences(others[0].space) == {"dim": (32, 16)}


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"hidden_act": "relu"}, False),
        ({"layer_norm_eps": 1e-5}, False),
        ({"hidden_dropout_prob": 0.5, "transformers_version": "4.1.0", "use_cache": False, "is_decoder": False}, True),
    ],
)
def test_a_space_knows_what_is_computed_with_the_weights(
    base: Encoder, tmp_path: Path, changes: dict[str, object], same: bool
) -> None:
    folder = shutil.copytree(base.source.files.folder, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    other = Encoder.load(str(folder), device="cpu", dtype="float32").space
    assert (other == base.space) == same
    assert set(base.space.differences(other)) == (set() if same else {"base_config"})


@pytest.mark.parametrize(("sides", "moves"), [("query", False), ("both", True)])
def test_only_an_adapter_that_changes_documents_needs_a_space_of_its_own(
    base: Encoder, sides: Sides, moves: bool
) -> None:
    adapted = base.with_adapter(random_adapter(base, sides=sides))
    assert (adapted.space != base.space) == moves
    assert adapted.space.document_adapter == (adapted.adapter.sha256 if moves and adapted.adapter else None)
