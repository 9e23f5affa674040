"""Chinese questions on an English model: words find everything, the model nothing, and that is what is said."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path

import pytest

from acclimate.cli.main import main
from acclimate.configs import DEFAULT_MODEL, EvaluateConfig, RunConfig
from acclimate.report.model_card import render
from acclimate.stages.evaluate import evaluate
from tests.stages.worlds import write_adapter

WHAT = [
    "锈蚀",
    "灌溉",
    "施肥",
    "嫁接",
    "剪枝",
    "育苗",
    "播种",
    "收割",
    "轮作",
    "休耕",
    "翻耕",
    "覆膜",
    "滴灌",
    "驱虫",
    "除草",
    "授粉",
    "催芽",
    "移栽",
]
OF = [
    "葡萄",
    "苹果",
    "橄榄",
    "甘蔗",
    "榴莲",
    "柑橘",
    "樱桃",
    "荔枝",
    "龙眼",
    "芒果",
    "菠萝",
    "香蕉",
    "草莓",
    "蓝莓",
    "石榴",
    "枇杷",
    "杨梅",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chinese")
    pairs = random.Random(0).sample(list(product(WHAT, OF)), 300)
    rows = [
        {"query": f"{of}怎样{what}？", "positive": f"{of}的{what}技术：{what}时应注意{of}的生长。"}
        for what, of in pairs
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    main(["prepare", str(folder / "pairs.jsonl"), "--out", str(folder / "run")])
    write_adapter(folder / "run" / "adapter", Path(DEFAULT_MODEL), strength=0.0)
    return folder / "run"


@pytest.mark.slow
def test_preparing_says_what_the_model_cannot_read(run: Path) -> None:
    info = json.loads((run / "dataset" / "dataset.json").read_text())
    assert info["reading"]["queries"]["languages"]["Han"]["unknown"] > 0.7
    assert "not suited" in info["warnings"][0] and "BAAI/bge-small-zh-v1.5" in info["warnings"][0]


@pytest.mark.slow
def test_the_verdict_recommends_bm25_and_says_why(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RunConfig(device="cpu", evaluate=EvaluateConfig(sign_flips=200))
    report = evaluate(run / "dataset", run / "adapter", run / "evaluation", config)
    assert report["test"]["bm25"]["ndcg@10"] == 1.0 and report["test"]["base"]["ndcg@10"] < 0.3  # type: ignore[operator]
    assert report["recommend"] == "bm25" and "unknown to the model" in report["unsuited"]
    assert report["against_bm25"]["high"] < 0
    main(["evaluate", str(run), "--sign-flips", "200", "--device", "cpu"])
    said = " ".join(capsys.readouterr().out.split())
    assert "verdict: Plain search by words (BM25) is better than either model, which cannot read these texts." in said
    main(["report", str(run)])
    assert '<h1 class="bad">Plain search by words (BM25) is better' in (run / "report.html").read_text()
    facts = {"base": None, "kind": "merged", "sides": "both", "dim": 384}
    card = render(facts, report)  # type: ignore[arg-type]
    assert "Verdict: Plain search by words (BM25) is better" in card


@pytest.mark.slow
def test_two_words_that_are_the_same_to_the_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["similarity", str(run), "锈蚀", "灌溉"])
    assert "100% of the texts are the same to the model" in capsys.readouterr().err
    main(["search", str(run), "锈蚀"])
    assert "unknown to the model" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_says_it_before_anything_is_done(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["adapt", str(run.parent / "pairs.jsonl"), "--out", str(run.parent / "dry"), "--dry-run"])
    assert "it is not suited to them. Models that fit: BAAI/bge-small-zh-v1.5" in capsys.readouterr().err
