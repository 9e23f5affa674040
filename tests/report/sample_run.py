"""A finished run folder by the contract, without training anything: what the report's tests, and eyes, look at.

To look at it: `python -m tests.report.sample_run FOLDER [retrieval|pairs]` writes the folder and its report.html.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.configs import RunConfig, dump_config, effective
from acclimate.files import write_json, write_jsonl
from acclimate.types import Kind

QUERIES = (
    "find all files larger than 100 MB that were changed in the last two days and print their sizes",
    "count the lines of every Python file below the current folder",
    "水稻纹枯病的发病条件和防治方法是什么？",
    "大棚番茄在冬季如何预防低温冻害",
    "replace tabs by four spaces in place, keeping a backup of each file",
    "小麦条锈病与叶锈病有什么区别",
)
DOCUMENTS = (
    "find . -type f -size +100M -mtime -2 -exec ls -lh {} +",
    "find . -name '*.py' -print0 | xargs -0 wc -l",
    "纹枯病在高温高湿、氮肥过多、田间郁闭时容易流行。防治上应打捞菌核、浅水勤灌、适时晒田，发病初期用井冈霉素或苯甲·丙环唑喷雾。",
    "冬季大棚番茄要加盖草苫和二道膜，夜间温度不低于八摄氏度；寒潮前浇足水、叶面喷施磷酸二氢钾，必要时用热风炉临时加温。",
    "sed -i.bak 's/\\t/    /g' *.txt",
    "条锈病的夏孢子堆鲜黄色、沿叶脉成行，像缝纫机轧过的针脚；叶锈病的夏孢子堆橘红色、散生，多不穿透叶背。",
    "du -ah . | sort -rh | head -n 20",
    "Print the first ten lines of each log file together with the file's name, then follow what is appended to them.",
)
METRICS = {
    "ndcg@10": (0.5207, 0.7312, 0.4815),
    "recall@5": (0.6011, 0.8120, 0.5432),
    "mrr@10": (0.4902, 0.7043, 0.4577),
    "map@100": (0.4870, 0.6987, 0.4533),
    "recall@100": (0.8744, 0.9701, 0.7820),
}
PAIR_METRICS = {
    "spearman": (0.6421, 0.7789),
    "pearson": (0.6610, 0.7904),
    "roc_auc": (0.8312, 0.9023),
    "best_f1": (0.7801, 0.8455),
    "best_f1_threshold": (0.7130, 0.5420),
}
CHANGES = {"better": 1.0, "no evidence": 0.0, "worse": -0.6}


def write_sample_run(run: Path, kind: Kind = "retrieval", verdict: str = "better") -> Path:
    """Write every file that a finished `adapt` leaves for the report; returns `run`."""
    for name in ("dataset", "negatives", "adapter", "evaluation"):
        (run / name).mkdir(parents=True, exist_ok=True)
        write_json(run / name / "inputs.json", {"source": "5f1c0a" + "9e" * 29})
    config = RunConfig()
    evaluation = pairs_evaluation(verdict) if kind == "pairs" else retrieval_evaluation(verdict)
    write_json(run / "evaluation" / "report.json", evaluation)
    write_json(run / "report.json", summary(evaluation, config))
    (run / "config.toml").write_text(dump_config(config), encoding="utf-8")
    write_json(run / "dataset" / "dataset.json", dataset(kind))
    reasons = ["exact duplicate"] * 211 + ["too short"] * 34 + ["contradiction: the same pair with two labels"] * 3
    rejected = ({"source": "pairs.jsonl", "row": i, "reason": why, "text": "ls"} for i, why in enumerate(reasons))
    write_jsonl(run / "dataset" / "rejected.jsonl", rejected)
    write_jsonl(run / "metrics.jsonl", metric_rows(kind))
    if kind == "retrieval":
        write_json(run / "negatives" / "audit.json", audit())
    return run


def retrieval_evaluation(verdict: str) -> dict[str, Any]:
    """`evaluation/report.json` of a run over queries and documents."""
    part = CHANGES[verdict]
    adapted = {name: base + part * (better - base) + 0.003 for name, (base, better, _) in METRICS.items()}
    cosines = {"positive_cosine": 0.5312, "negative_cosine": 0.4870, "margin": 0.0442}
    after = {"positive_cosine": 0.6120, "negative_cosine": 0.3705, "margin": 0.2415}
    test = {
        "queries": 606,
        "queries_without_relevant": 0,
        "trained_on": 12,
        "documents": 10_347,
        "base": {name: values[0] for name, values in METRICS.items()} | cosines,
        "adapted": adapted | after,
        "bm25": {name: values[2] for name, values in METRICS.items()},
        "delta": {name: delta(adapted[name] - METRICS[name][0]) for name in METRICS},
    }
    return {
        "kind": "retrieval",
        "test": test,
        "verdict": verdict,
        "recommend": "adapted" if verdict == "better" else "base",
        "confidence": 0.95,
        "lexical": {
            "language": "english",
            "variant": "stop words left out",
            "chosen": "best NDCG@10 of 500 dev queries",
            "tried": {"stop words left out, stemmed": 0.462, "stop words left out": 0.475, "words as they stand": 0.44},
        },
        "histograms": histograms((0.53, 0.11, 0.49, 0.12), (0.61, 0.1, 0.37, 0.12)),
        "won": [change(QUERIES[i], i, 0.0, 1.0 - 0.1 * i) for i in range(6)],
        "lost": [change(QUERIES[5 - i], 5 - i, 1.0, 0.3 + 0.1 * i) for i in range(4)],
        "guard": [
            {
                "name": "scifact",
                "base": {"ndcg@10": 0.6451},
                "adapted": {"ndcg@10": 0.6402},
                "delta": {"ndcg@10": delta(-0.0049)},
                "relative_loss": 0.0076,
                "warn": False,
            },
            {
                "name": "通用问答",
                "base": {"ndcg@10": 0.5513},
                "adapted": {"ndcg@10": 0.5107},
                "delta": {"ndcg@10": delta(-0.0406)},
                "relative_loss": 0.0736,
                "warn": True,
            },
        ],
        "domain": {
            "lexicon": {"origin": "extracted from the corpus against 通用问答", "terms": 1_000},
            "term_accuracy": {
                "terms": 812,
                "documents": 10_347,
                "base": {"term_accuracy@1": 0.6274, "term_r_precision": 0.3929, "text_accuracy@1": 0.5113},
                "adapted": {"term_accuracy@1": 0.6801, "term_r_precision": 0.3801, "text_accuracy@1": 0.5113},
                "delta": {
                    "term_accuracy@1": delta(0.0527),
                    "term_r_precision": delta(-0.0128),
                    "text_accuracy@1": delta(0.0),
                },
            },
            "relatedness": {
                "origin": "clusters of the corpus by its words (TF-IDF)",
                "topics": 50,
                "texts": 400,
                "base": {"topic_auc": 0.7724},
                "adapted": {"topic_auc": 0.8167},
                "delta": {"topic_auc": delta(0.0443)},
            },
        },
        "timings": {"evaluate_s": 41.2},
    }


def pairs_evaluation(verdict: str) -> dict[str, Any]:
    """`evaluation/report.json` of a run over labelled pairs."""
    adapted = {name: base + CHANGES[verdict] * (better - base) for name, (base, better) in PAIR_METRICS.items()}
    base = {name: values[0] for name, values in PAIR_METRICS.items()}
    changes = {name: delta(adapted[name] - base[name]) for name in ("spearman", "pearson")}
    return {
        "kind": "pairs",
        "test": {"pairs": 4_906, "base": base, "adapted": adapted, "delta": changes},
        "verdict": verdict,
        "recommend": "adapted" if verdict == "better" else "base",
        "histograms": histograms((0.78, 0.1, 0.7, 0.12), (0.8, 0.11, 0.45, 0.16)),
        "guard": [],
        "timings": {"evaluate_s": 9.9},
    }


def summary(evaluation: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """`report.json` of the run, as `adapt` writes it."""
    return {
        "source": "data/nl2bash.jsonl",
        "command": "acclimate adapt data/nl2bash.jsonl --out runs/farm",
        **{name: evaluation[name] for name in ("kind", "test", "verdict", "recommend", "guard")},
        "domain": evaluation.get("domain", {}),
        "timings": {"prepare_s": 6.3, "mine_s": 38.4, "train_s": 251.7, "evaluate_s": 41.2, "total_s": 337.6},
        "train": {
            "tokens": 1_204_511,
            "tokens_per_s": 4_785.3,
            "trainable": 1_327_104,
            "total": 24_040_320,
            "steps": 81,
            "planned_steps": 162,
            "step_s": 251.9,
            "best_step": 80,
            "learning_rate": 0.002,
            "scale": {
                "temperature": 0.05,
                "temperature_from": "that of all-MiniLM-L6-v2 by its authors",
                "spread": 0.1136,
                "false_negative_margin": 0.1022,
            },
        },
        "model": {"id": "sentence-transformers/all-MiniLM-L6-v2", "sha256": "53aa51172d142c89d9012cce15ae4d6c" * 2},
        "config": effective(config, "domain", "prepare", "mine", "train", "objective", "evaluate"),
        "versions": {"python": "3.11.2", "torch": "2.13.0", "transformers": "5.23.0", "acclimate": "0.1.0"},
    }


def dataset(kind: Kind) -> dict[str, Any]:
    """`dataset/dataset.json`."""
    of_queries: dict[str, Any] = {
        "queries": 11_444,
        "documents": 10_347,
        "examples": 10_338,
        "with_negatives": 0,
        "train": {"queries": 10_338, "documents": 9_300, "pairs": 10_338},
        "dev": {"queries": 500, "documents": 480, "pairs": 500},
        "test": {"queries": 606, "documents": 590, "pairs": 611},
        "rejected": {"exact duplicate": 211, "too short": 34},
        "shared_documents": 412,
        "near_duplicates": 303,
    }
    of_pairs: dict[str, Any] = {
        "queries": 0,
        "documents": 0,
        "examples": 4_500,
        "with_negatives": 0,
        "train": {"pairs": 4_500},
        "dev": {"pairs": 237},
        "test": {"pairs": 4_906},
        "rejected": {"exact duplicate": 211, "too short": 34},
        "shared_documents": 0,
        "near_duplicates": 0,
    }
    return {
        "kind": kind,
        "columns": {"anchor": ["question"], "positive": ["command"], "negatives": [], "ignored": ["", "date"]},
        "label_range": [0.0, 1.0] if kind == "pairs" else None,
        "counts": of_queries if kind == "retrieval" else of_pairs,
        "splits": {"train": "given", "dev": "cut from train by component: 500 of 10838 queries", "test": "given"},
        "lengths": {
            "queries": lengths(14, 24, 41, 97),
            "documents": lengths(17, 39, 88, 412),
        },
        "languages": {"Latin": 0.93, "Han": 0.07},
        "reading": {"queries": reading(0.031, 0.004), "documents": reading(0.012, 0.0)},
        "quoting": "csv",
        "warnings": [
            "412 documents of dev and test are in train too; --strict-documents removes them",
            "303 queries of dev and test are nearly a text of train; --strict-near removes these training rows",
            "41 documents have the text of another document",
        ],
    }


def reading(han: float, alike: float) -> dict[str, Any]:
    """What of one side's texts the model cannot tell."""
    scripts = {"Latin": {"texts": 0.93, "unknown": 0.0}, "Han": {"texts": 0.07, "unknown": han}}
    return {"unknown": han / 10, "languages": scripts, "alike": alike}


def lengths(*tokens: int) -> dict[str, Any]:
    """Percentiles of one side's lengths, and the limit beyond which its texts are cut."""
    names = ("p50", "p90", "p99", "max")
    return {
        "characters": {name: 4 * value for name, value in zip(names, tokens, strict=True)},
        "tokens": dict(zip(names, tokens, strict=True)),
        "longer_than_limit": {"max_tokens": 256, "share": 0.0173},
    }


def audit() -> dict[str, Any]:
    """`negatives/audit.json`."""
    scores = histograms((0.58, 0.12, 0.4, 0.1), (0.58, 0.12, 0.4, 0.1))
    return {
        "histograms": {"edges": scores["edges"], **scores["base"]},
        "queries": 10_338,
        "negatives": 40_122,
        "candidates": 516_900,
        "score_spread": 0.1148,
        "spread_margin": 0.27,
        "removed": {"spread_margin": 5_120, "max_score": 12},
        "warnings": ["spread_margin removed 81% of the candidates (--spread-margin): lower it"],
        "queries_with_too_few": 187,
        "queries_with_too_few_ids": [f"q{number}" for number in range(0, 500, 10)],
        "likeliest_false_negatives": [
            {
                "query": QUERIES[i % 6],
                "positive": DOCUMENTS[i % 6],
                "negative": DOCUMENTS[(i + 1) % 8],
                "score": 0.71 - 0.01 * i,
                "positive_score": 0.75 - 0.01 * i,
            }
            for i in range(20)
        ],
    }


def metric_rows(kind: Kind) -> list[dict[str, Any]]:
    """`metrics.jsonl`: a training row every second step, an evaluation every twenty."""
    random = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    for step in range(0, 82, 2):
        done = step / 80
        loss = 0.6 + 1.9 * np.exp(-4 * done) + random.normal(0, 0.09)
        rate = 0.002 * min(1.0, step / 8) * (1 - 0.9 * done)
        rows.append(
            {
                "step": step,
                "epoch": done,
                "loss": loss,
                "learning_rate": rate,
                "grad_norm": 1.0,
                "tokens": 14_870 * step,
                "tokens_per_s": 4_780.0,
            }
        )
        if step % 20 == 0:
            rows.append({"step": step, "dev": dev_row(kind, 1 - np.exp(-3.5 * done))})
    return rows


def dev_row(kind: Kind, learned: float) -> dict[str, float]:
    """Metrics on dev once a share of the learning is done."""
    if kind == "pairs":
        return {"spearman": 0.64 + 0.13 * learned, "pearson": 0.66 + 0.12 * learned, "loss": 0.11 - 0.06 * learned}
    positive, negative = 0.53 + 0.08 * learned, 0.49 - 0.12 * learned
    cosines = {"positive_cosine": positive, "negative_cosine": negative, "margin": positive - negative}
    ranks = {"ndcg@10": 0.55 + 0.2 * learned, "recall@5": 0.63 + 0.19 * learned, "mrr@10": 0.52 + 0.2 * learned}
    return {**ranks, **cosines, "loss": 1.6 - 0.9 * learned}


def delta(value: float) -> dict[str, float]:
    """A difference with an interval of ± 0.016, and the p that goes with it."""
    return {
        "value": value,
        "low": value - 0.016,
        "high": value + 0.016,
        "p": 0.0005 if abs(value) > 0.016 else 0.41,
        "clusters": 571,
    }


def change(query: str, place: int, base: float, adapted: float) -> dict[str, Any]:
    """A query whose relevant document rose (or fell) between base and adapted."""
    others = [index for index in range(len(DOCUMENTS)) if index != place]
    misses, hits = [others[:3], [place, *others[3:5]]]
    before, after = (misses, hits) if adapted > base else (hits, misses)
    return {
        "query": query,
        "delta": adapted - base,
        "base": base,
        "adapted": adapted,
        "base_top": [document(index, place) for index in before],
        "adapted_top": [document(index, place) for index in after],
        "base_rank": 1 if adapted < base else 37,
        "adapted_rank": 1 if adapted > base else None,
        "ranked": 100,
    }


def document(index: int, relevant: int) -> dict[str, Any]:
    """One ranked document of a `change`."""
    return {"id": f"d{index}", "text": DOCUMENTS[index], "score": 0.7 - 0.03 * index, "relevant": index == relevant}


def histograms(base: tuple[float, ...], adapted: tuple[float, ...]) -> dict[str, Any]:
    """Counts of 600 positive and 600 negative cosines, normal with (mean, deviation) each, before and after."""
    random = np.random.default_rng(3)
    edges = np.linspace(-1, 1, 81)
    sides = {
        name: {
            "positive": np.histogram(random.normal(values[0], values[1], 600).clip(-1, 1), edges)[0].tolist(),
            "negative": np.histogram(random.normal(values[2], values[3], 600).clip(-1, 1), edges)[0].tolist(),
        }
        for name, values in (("base", base), ("adapted", adapted))
    }
    return {"edges": [round(float(edge), 4) for edge in edges], **sides}


def edit(path: Path, **changes: Any) -> None:
    """Replace top-level values of a JSON file (written plainly: a test may put in what our writer would refuse)."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


if __name__ == "__main__":
    from acclimate.stages.report import report

    folder = Path(sys.argv[1])
    kind: Kind = "pairs" if sys.argv[2:] == ["pairs"] else "retrieval"
    report(write_sample_run(folder, kind))
