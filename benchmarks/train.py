"""Training speed in real (unpadded) tokens per second: Acclimate against sentence-transformers' trainer.

Same model, texts, LoRA (rank 16 on every linear layer), InfoNCE with one given negative, batch size, steps and dtype.
Ours runs with the default memory for activations, and with so little that GradCache needs its second pass. The peer
runs as its documentation has it (`bf16`: autocast over float32 weights), and as fast as it can be set up here: bfloat16
weights and eager attention. Beside them our own encoding rate on the same texts, which bounds what training can reach.

    python benchmarks/train.py [--examples 1024] [--batch-size 128] [--repeats 3] [--model FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from acclimate.configs import RunConfig, with_overrides
from acclimate.core.lora import attach, trainable_parameters
from acclimate.models.encoder import Encoder
from acclimate.training.fit import fit
from acclimate.training.objectives import info_nce
from acclimate.training.schedule import TaskSchedule
from acclimate.types import Example
from common import MINILM, docstring_pairs, has_bfloat16, machine, peer_folder, table

RANK, RATE, TEMPERATURE = 16, 1e-4, 0.05
PEER = "train (sentence-transformers)"


def main() -> None:
    """Time each side `--repeats` times in turn; print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default=MINILM, help="a model's folder")
    arguments = parser.parse_args()
    model, batch = arguments.model, arguments.batch_size
    pairs = docstring_pairs(arguments.examples)
    examples = [
        Example(query, document, (other,))
        for (query, document), (_, other) in zip(pairs, [*pairs[1:], pairs[0]], strict=True)
    ]
    sides = {
        "encode (ours)": lambda: encode(model, examples),
        "train (ours)": lambda: train(model, examples, batch, memory_gb=None),
        "train (ours, GradCache)": lambda: train(model, examples, batch, memory_gb=0.3),
        PEER: lambda: train_peer(model, examples, batch),
        f"{PEER}, bfloat16 weights, eager attention": lambda: train_peer(model, examples, batch, fastest=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.repeats):
        for name, side in sides.items():
            rates[name].append(side())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(machine(), f"; {len(examples)} examples, batch {arguments.batch_size}")
    peer, encoding = medians[PEER], medians["encode (ours)"]
    rows = [[name, f"{rate:,.0f}", f"{rate / encoding:.2f}", f"{rate / peer:.2f}"] for name, rate in medians.items()]
    print(table(["", "real tokens/s", "of our encoding", "of the peer's training"], rows))


def real_tokens(encoder: Encoder, examples: list[Example]) -> int:
    """Tokens of all anchors, positives and negatives, as often as they are given, without padding."""
    texts = [text for example in examples for text in (example.anchor, example.positive, *example.negatives)]
    return int(encoder.tokenise(texts, "document").lengths.sum())


def encode(model: str, examples: list[Example]) -> float:
    """Our encoding rate on the training's texts."""
    encoder = Encoder.load(model, device="cpu")
    texts = [text for example in examples for text in (example.anchor, example.positive)]
    tokens = int(encoder.tokenise(texts, "document").lengths.sum())
    started = time.perf_counter()
    encoder.encode(texts)
    return tokens / (time.perf_counter() - started)


def train(model: str, examples: list[Example], batch_size: int, memory_gb: float | None) -> float:
    """One pass of our loop, without dev evaluations. Tokens are counted as computed: each text once in a step."""
    encoder = Encoder.load(model, device="cpu")
    config = with_overrides(
        RunConfig(),
        {"batch_size": batch_size, "temperature": TEMPERATURE, "rank": RANK, "activation_memory_gb": memory_gb},
    )
    attach(encoder.model, config.train.targets, rank=RANK)
    schedule = TaskSchedule(
        examples=len(examples), batch_size=batch_size, epochs=1.0, seed=0, learning_rate=RATE, warmup_fraction=0.1
    )
    loss_fn = info_nce(encoder, examples, schedule, config.objective, config.train)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = fit(
            trainable_parameters(encoder.model),
            loss_fn,
            schedule,
            config.train,
            selection=None,
            folder=Path(folder) / "work",
            metrics=Path(folder) / "metrics.jsonl",
            identity="benchmark",
            dtype=str(encoder.dtype).removeprefix("torch."),
        )
        return done.tokens / (time.perf_counter() - started)


def train_peer(model_id: str, examples: list[Example], batch_size: int, *, fastest: bool = False) -> float:
    """One pass of the peer's trainer on the same triplets.

    Args:
        model_id: the model, as ours has it.
        examples: with one negative each.
        batch_size: examples of a step.
        fastest: eager attention and, where the processor has it, bfloat16 weights instead of autocast.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    halved = fastest and has_bfloat16()
    loading = {"attn_implementation": "eager", "dtype": torch.bfloat16 if halved else torch.float32} if fastest else {}
    model = SentenceTransformer(peer_folder(model_id), device="cpu", model_kwargs=loading)
    model.add_adapter(
        LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=RANK, lora_alpha=RANK, target_modules="all-linear")
    )
    prompts = Encoder.load(model_id, device="cpu").use.prompts
    query_prompt, document_prompt = prompts.prompt("query"), prompts.prompt("document")
    columns = {
        "anchor": [example.anchor for example in examples],
        "positive": [example.positive for example in examples],
        "negative": [example.negatives[0] for example in examples],
    }
    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=batch_size,
                learning_rate=RATE,
                bf16=has_bfloat16() and not halved,
                use_cpu=True,
                prompts={"anchor": query_prompt, "positive": document_prompt, "negative": document_prompt},
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict(columns),
            loss=MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE),
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return real_tokens(Encoder.load(model_id, device="cpu"), examples) / seconds


if __name__ == "__main__":
    main()
