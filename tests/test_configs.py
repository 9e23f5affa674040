"""Settings: TOML in and out, unknown keys, wrong types, impossible combinations."""

from __future__ import annotations

import dataclasses
import tomllib
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from acclimate.configs import (
    NONE,
    RENAMED,
    DatasetConfig,
    EvaluateConfig,
    ObjectiveConfig,
    PrepareConfig,
    RunConfig,
    TrainConfig,
    config_from_mapping,
    dump_config,
    effective,
    for_dataset,
    load_config,
    with_overrides,
)
from acclimate.errors import AcclimateError, DataError, UsageError

SECTIONS: dict[str, Any] = {
    name: hint for name, hint in get_type_hints(RunConfig).items() if dataclasses.is_dataclass(hint)
}


@cache
def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    if get_origin(hint) in (Union, UnionType):
        return st.one_of(*map(values_of, get_args(hint)))
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_origin(hint) is tuple and get_args(hint)[0] is DatasetConfig:
        return st.lists(datasets(), max_size=3).map(tuple)
    if get_origin(hint) is tuple:
        return st.lists(values_of(get_args(hint)[0]), max_size=3).map(tuple)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        type(None): st.none(),
        bool: st.booleans(),
        int: st.integers(0, 10**6),
        float: st.floats(0, 1e6) | st.floats(0, 1, exclude_max=True),
        str: st.text().filter(lambda text: text != NONE),
    }
    return simple[hint]


def datasets() -> st.SearchStrategy[DatasetConfig]:
    """Tables of [[datasets]], with names of their own or of their sources."""
    values = {name: values_of(hint) for name, hint in get_type_hints(DatasetConfig).items()}
    names = st.from_regex(r"[A-Za-z农][\w.-]{0,9}", fullmatch=True)
    chosen = {"source": names, "name": st.none() | names, "weight": st.floats(0.1, 10)}
    return st.builds(DatasetConfig, **{**values, **chosen})


@cache
def changes(cls: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Up to three fields of a config with values of their types; possible together or not."""
    values = {name: values_of(hint) for name, hint in get_type_hints(cls).items() if name not in SECTIONS}
    chosen = st.sets(st.sampled_from(sorted(values)), max_size=3)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({name: values[name] for name in sorted(names)}))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_written_as_toml_and_read_again_it_is_the_same(data: st.DataObject) -> None:
    """In one place at a time: hardly any change of all places at once would be a possible config."""
    place = data.draw(st.sampled_from(["", *SECTIONS]))
    try:
        if place:
            config = RunConfig(**{place: SECTIONS[place](**data.draw(changes(SECTIONS[place])))})
        else:
            config = RunConfig(**data.draw(changes(RunConfig)))
    except UsageError:
        reject()  # hypothesis complains where most are
    assert config_from_mapping(tomllib.loads(dump_config(config)), "here") == config


def test_every_field_is_written_out(tmp_path: Path) -> None:
    """`config.toml` holds the whole run, also what was left at its default."""
    written = tomllib.loads(dump_config(RunConfig()))
    for name, cls in SECTIONS.items():
        assert set(written[name]) == {field.name for field in dataclasses.fields(cls)}
    path = tmp_path / "config.toml"
    path.write_text(dump_config(RunConfig(limit=7, query_prompt='say "search": \\ ', model="模型")), encoding="utf-8")
    assert load_config(path) == RunConfig(limit=7, query_prompt='say "search": \\ ', model="模型")


def test_an_unknown_key_is_named_with_the_possible_ones() -> None:
    with pytest.raises(UsageError, match=r"run\.toml \[train\]: unknown key 'learning_rte'.*Possible: .*learning_rate"):
        config_from_mapping({"train": {"learning_rte": 0.1}}, "run.toml")
    with pytest.raises(UsageError, match=r"run\.toml: unknown key 'rank'"):
        config_from_mapping({"rank": 8}, "run.toml")


def test_an_old_name_in_a_file_is_understood_and_the_new_one_said(capsys: pytest.CaptureFixture[str]) -> None:
    config = config_from_mapping({"objective": {"anchor_source": "texts.txt", "anchor_weight": 3}}, "run.toml")
    assert config.objective == ObjectiveConfig(retain_data="texts.txt", retain_weight=3.0)
    assert "run.toml [objective]: anchor_source is called retain_data now" in capsys.readouterr().err
    assert config_from_mapping({"evaluate": {"bootstrap": 300}}, "run.toml").evaluate.sign_flips == 300
    assert "bootstrap is called sign_flips now" in capsys.readouterr().err
    both = {"objective": {"anchor_weight": 3, "retain_weight": 2}}
    with pytest.raises(UsageError, match=r"run\.toml \[objective\]: anchor_weight and retain_weight are given"):
        config_from_mapping(both, "run.toml")


def test_every_new_name_is_a_setting_and_no_old_one_is() -> None:
    names = {field.name for cls in (RunConfig, *SECTIONS.values()) for field in dataclasses.fields(cls)}
    assert set(RENAMED.values()) <= names and not set(RENAMED) & names


def test_an_old_name_overrides_too() -> None:
    assert with_overrides(RunConfig(), {"anchor_weight": 2.0}).objective.retain_weight == 2.0


def test_padding_side_is_no_setting() -> None:
    """Nothing depends on it: texts are packed, or padded with a mask."""
    with pytest.raises(UsageError, match="unknown key 'padding_side'"):
        config_from_mapping({"padding_side": "left"}, "run.toml")


def test_an_instruction_and_a_whole_prompt_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--instruction and --query-prompt exclude each other"):
        RunConfig(instruction="find farms", query_prompt="query: ")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": "42"}, r"seed = '42'.*whole number"),
        ({"seed": 1.5}, r"seed = 1\.5"),
        ({"seed": True}, "seed = True"),
        ({"train": {"full": 1}}, "full = 1.*true or false"),
        ({"train": {"sides": "documents"}}, "sides = 'documents'.*'both' or 'query'"),
        ({"train": {"targets": ["a", 1]}}, "targets.*list of strings"),
        ({"train": 3}, r"\[train\] is a table, found 3"),
    ],
)
def test_a_wrong_type_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config_from_mapping(values, "run.toml")


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("prepare", {"anchor_column": "q"}, "only one of --anchor-column and --positive-column"),
        ("prepare", {"label_min": 5.0, "label_max": 1.0}, "label_min = 5.0 is not below"),
        ("prepare", {"test_fraction": 1.0}, "test_fraction = 1.0"),
        ("mine", {"range_min": 9, "range_max": 9}, "range_max = 9 is not above"),
        ("mine", {"min_score": 0.9, "max_score": 0.1}, "min_score = 0.9 is not below"),
        ("train", {"full": True, "sides": "query"}, "exclude each other"),
        ("objective", {"temperature": 0.0}, "temperature = 0.0"),
        ("train", {"rank": 0}, "rank = 0"),
        ("train", {"targets": ()}, "targets is empty"),
        ("train", {"learning_rate": float("nan")}, "learning_rate = nan"),
        ("evaluate", {"sign_flips": 1}, "sign_flips = 1"),
    ],
)
def test_conflicts_are_rejected(section: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SECTIONS[section](**values)
    with pytest.raises(UsageError, match=message):
        with_overrides(RunConfig(), values)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.toml: no such file"):
        load_config(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = 1\nmodel = \n")
    with pytest.raises(DataError, match=r"broken\.toml: not valid TOML.*line 2"):
        load_config(broken)
    broken.write_bytes(b"model = '\xff'")
    with pytest.raises(DataError, match="not valid TOML"):
        load_config(broken)


def test_overrides_find_their_section() -> None:
    config = with_overrides(RunConfig(train=TrainConfig(rank=4)), {"seed": 1, "temperature": 0.1, "top_k": 20})
    assert config.train == TrainConfig(rank=4) and config.objective == ObjectiveConfig(temperature=0.1)
    assert config == RunConfig(
        seed=1, train=config.train, objective=config.objective, evaluate=EvaluateConfig(top_k=20)
    )
    with pytest.raises(AcclimateError, match="unknown setting 'tempo'"):
        with_overrides(RunConfig(), {"tempo": 3})


def test_a_stage_sees_the_shared_fields_and_its_own_section() -> None:
    values = effective(RunConfig(seed=3), "train")
    assert values["seed"] == 3
    assert values["train"]["targets"] == ["all-linear"]
    assert not {"mine", "prepare", "evaluate"} & set(values)


def test_a_list_of_tables_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        """
        seed = 7

        [objective]
        temperature = 0.1

        [[datasets]]
        source = "laws.jsonl"
        query_prompt = "为这个句子生成表示以用于检索相关文章："
        columns = ["a", "b"]

        [[datasets]]
        source = "data/sick"
        name = "similar"
        loss = "cosine-mse"
        weight = 2
        """
    )
    laws, similar = load_config(path).datasets
    assert (laws.task, laws.columns, laws.weight) == ("laws", ("a", "b"), 1.0)
    assert similar == DatasetConfig(source="data/sick", name="similar", loss="cosine-mse", weight=2.0)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"source": "a"}, r"datasets is a list of tables.*\[\[datasets\]\]"),
        ([{"name": "a"}], r"run\.toml \[\[datasets\]\] 1: source is missing"),
        ([{"source": "a"}, {"source": "b", "wieght": 2}], r"\[\[datasets\]\] 2: unknown key 'wieght'.*weight"),
        ([{"source": "a", "weight": "2"}], r"\[\[datasets\]\] 1: weight = '2'.*a number"),
        ([{"source": "a", "weight": 0}], r"weight = 0\.0"),
        ([{"source": "a", "loss": "mse"}], r"loss = 'mse'"),
        ([{"source": "x/a.jsonl"}, {"source": "y/a.tsv"}], r"two datasets have the name 'a'.*name of its own"),
        ([{"source": "a", "name": "../b"}], r"the name '\.\./b'.*cannot be that of a folder"),
    ],
)
def test_a_bad_table_is_named(tables: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config_from_mapping({"datasets": tables}, "run.toml")


def test_a_dataset_s_settings_win_over_the_run_s() -> None:
    laws = DatasetConfig(source="laws", query_prompt="law: ", label_column="grade", loss="info-nce")
    config = RunConfig(query_prompt="query: ", prepare=PrepareConfig(label_column="label"), datasets=(laws,))
    alone = for_dataset(config, laws)
    assert (alone.query_prompt, alone.prepare.label_column, alone.objective.loss) == ("law: ", "grade", "info-nce")
    assert (alone.task, alone.datasets) == (None, ())
    # Among several, its prompts are its task's, and the run's stay the default ones.
    others = dataclasses.replace(config, datasets=(laws, DatasetConfig(source="similar")))
    own = for_dataset(others, laws)
    assert (own.query_prompt, own.prepare.label_column, own.task) == ("query: ", "grade", "laws")
    assert own.datasets == (laws,)
    prompts = {"query_prompt": "law: ", "instruction": None, "document_prompt": None}
    assert effective(own, "mine")["tasks"] == {"laws": prompts}


def test_a_weight_is_the_training_s_and_no_one_else_s() -> None:
    light, heavy = (RunConfig(datasets=(DatasetConfig(source="a", weight=weight),)) for weight in (1.0, 2.0))
    assert effective(light, "mine") == effective(heavy, "mine")
    assert effective(light, "train", "objective") != effective(heavy, "train", "objective")
