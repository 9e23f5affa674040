"""Training speed of Qwen3-0.6B's architecture at full size, random weights: Acclimate beside sentence-transformers.

Same folder, texts, batch, steps, LoRA (rank 16 on every linear layer) or all weights, InfoNCE with one given negative,
bfloat16 products. Texts are random letters of L/2 to L tokens. Per length, way of training and side: real (unpadded)
tokens per second after the first steps, the share of the chip's matrix rate, measured here too, that the model's own
products make of it, and the most memory that was allocated. `--cached` gives sentence-transformers its loss in two
passes (CachedMultipleNegativesRankingLoss), where a batch does not fit otherwise.

    python benchmarks/gpu.py [--lengths 128 512] [--batch-size 64] [--steps 12] [--ways lora full] [--compile] \\
        [--cached]

Without a GPU it runs the same code on a tiny model in float32, to show that it works; those numbers mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import string
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model, TrainerCallback

from acclimate.configs import RunConfig, with_overrides
from acclimate.core.lora import attach, trainable_parameters
from acclimate.formats.sentence_transformers import write_pipeline
from acclimate.formats.sources import resolve_model
from acclimate.models.encoder import Encoder
from acclimate.models.loading import compile_layers
from acclimate.training.fit import fit
from acclimate.training.objectives import info_nce
from acclimate.training.schedule import TaskSchedule
from acclimate.training.step_texts import Options
from acclimate.types import Example
from common import machine, table

RANK, RATE, TEMPERATURE, FIRST_STEPS = 16, 1e-5, 0.05, 3
FULL_SIZE: dict[str, Any] = {
    "vocab_size": 151669,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000},
    "tie_word_embeddings": True,
}
TINY = (
    FULL_SIZE
    | {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    | {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
)
END = "<|endoftext|>"


@dataclass(frozen=True)
class Job:
    """One training to time."""

    folder: Path
    examples: list[Example]
    way: str
    batch_size: int
    device: torch.device
    compiled: bool
    cached: bool

    @property
    def half(self) -> bool:
        """Whether products are in bfloat16."""
        return self.device.type == "cuda"


def main() -> None:
    """Time both sides at every length, in every way; print one table."""
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512] if on_gpu else [16, 32])
    parser.add_argument("--batch-size", type=int, default=64 if on_gpu else 8)
    parser.add_argument("--steps", type=int, default=12 if on_gpu else 5)
    parser.add_argument("--ways", nargs="+", choices=["lora", "full"], default=["lora", "full"])
    parser.add_argument("--compile", action="store_true", help="compile our layers")
    parser.add_argument("--cached", action="store_true", help="the peer's loss with GradCache")
    arguments = parser.parse_args()
    device = torch.device("cuda" if on_gpu else "cpu")
    rate = matrix_rate(device)
    chip = f"{torch.cuda.get_device_name()}, " if on_gpu else "no GPU (tiny model, float32: a test of the script), "
    print(f"{chip}{machine()}; matrix rate {rate / 1e12:,.3g} TFLOP/s")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        config = write_model(Path(folder), FULL_SIZE if on_gpu else TINY)
        for length in arguments.lengths:
            examples = random_examples(arguments.steps * arguments.batch_size, length)
            for way in arguments.ways:
                job = Job(
                    Path(folder), examples, way, arguments.batch_size, device, arguments.compile, arguments.cached
                )
                for name, side in (("Acclimate", ours), ("sentence-transformers", theirs)):
                    speed, memory = measured(side, job)
                    share = speed * flops_per_token(config, length, way) / rate
                    rows.append([str(length), way, name, f"{speed:,.0f}", f"{share:.1%}", memory])
                    print(" ".join(rows[-1]), flush=True)
    print(table(["length", "way", "", "real tokens/s", "of the matrix rate", "peak memory"], rows))


def matrix_rate(device: torch.device) -> float:
    """Floating-point operations a second in a large matrix product, the best of several."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (512, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        wait(device)
        started = time.perf_counter()
        for _ in range(5):
            left @ right
        wait(device)
        best = min(best, (time.perf_counter() - started) / 5)
    return 2 * size**3 / best


def flops_per_token(config: Qwen3Config, length: int, way: str) -> float:
    """Of one training step, without recomputation: a frozen weight is used twice, one that trains three times.

    Attention over texts of 3/4 `length` on average, of which a token sees half, is used three times either way.
    """
    hidden, queries = config.hidden_size, config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    weights = hidden * (2 * queries + 2 * keys) + 3 * hidden * config.intermediate_size
    attention = 2 * queries * (0.75 * length) / 2
    uses = 2 if way == "lora" else 3
    return 2.0 * config.num_hidden_layers * (uses * weights + 3 * attention)


def measured(side: Any, job: Job) -> tuple[float, str]:
    """Real tokens per second, and the peak of allocated memory; an error of memory is a result too."""
    gc.collect()
    if job.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        speed = side(job)
    except torch.cuda.OutOfMemoryError:
        return 0.0, "does not fit"
    if job.device.type != "cuda":
        return speed, "-"
    return speed, f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


def ours(job: Job) -> float:
    """Our loop."""
    full = job.way == "full"
    dtype = "bfloat16" if job.half and not full else "float32"
    encoder = Encoder.load(str(job.folder), device=str(job.device), dtype=dtype)
    config = with_overrides(
        RunConfig(),
        {"batch_size": job.batch_size, "temperature": TEMPERATURE, "rank": RANK, "checkpoint_steps": 10**6},
    )
    if full:
        trainable = dict(encoder.model.requires_grad_(True).named_parameters())
    else:
        attach(encoder.model, config.train.targets, rank=RANK)
        trainable = trainable_parameters(encoder.model)
    if job.compiled:
        compile_layers(encoder.model)
    schedule = TaskSchedule(
        examples=len(job.examples),
        batch_size=job.batch_size,
        epochs=1.0,
        seed=0,
        learning_rate=RATE,
        warmup_fraction=0.1,
    )
    autocast = partial(torch.autocast, job.device.type, torch.bfloat16, enabled=job.half and full)
    loss_fn = info_nce(encoder, job.examples, schedule, config.objective, config.train, Options(autocast=autocast))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "metrics.jsonl"
        fit(
            trainable,
            loss_fn,
            schedule,
            config.train,
            selection=None,
            folder=Path(folder) / "work",
            metrics=log,
            identity="benchmark",
            dtype="bfloat16" if job.half else "float32",
        )
        rows = [json.loads(line) for line in log.read_text().splitlines()]
    tokens = [after["tokens"] - before["tokens"] for before, after in pairwise(rows)]
    seconds = [count / row["tokens_per_s"] for count, row in zip(tokens, rows[1:], strict=True)]
    first = FIRST_STEPS - 1
    return sum(tokens[first:]) / sum(seconds[first:])


class Clock(TrainerCallback):  # type: ignore[misc]
    """The peer's time from the end of the first steps to the end of the last."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.started, self.seconds = device, 0.0, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the trainer's form
        """Called by the trainer."""
        if state.global_step == FIRST_STEPS:
            wait(self.device)
            self.started = time.perf_counter()
        if state.global_step == state.max_steps:
            wait(self.device)
            self.seconds = time.perf_counter() - self.started


def theirs(job: Job) -> float:
    """The peer's trainer on the same triplets, in their order."""
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses

    dtype = torch.bfloat16 if job.half and job.way == "lora" else torch.float32
    model = SentenceTransformer(str(job.folder), device=str(job.device), model_kwargs={"dtype": dtype})
    if job.way == "lora":
        model.add_adapter(
            LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=RANK, lora_alpha=RANK, target_modules="all-linear")
        )
    kind = losses.CachedMultipleNegativesRankingLoss if job.cached else losses.MultipleNegativesRankingLoss
    columns = {
        "anchor": [example.anchor for example in job.examples],
        "positive": [example.positive for example in job.examples],
        "negative": [example.negatives[0] for example in job.examples],
    }
    clock = Clock(job.device)
    with tempfile.TemporaryDirectory() as folder:
        SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=job.batch_size,
                learning_rate=RATE,
                bf16=job.half,
                use_cpu=not job.half,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict(columns),
            loss=kind(model, scale=1 / TEMPERATURE),
            callbacks=[clock],
        ).train()
    texts = [text for e in job.examples for text in (e.anchor, e.positive, *e.negatives)]
    tokens = sum(len(text) + 1 for text in texts)
    steps = -(-len(job.examples) // job.batch_size)
    return tokens * (steps - FIRST_STEPS) / steps / clock.seconds


def write_model(folder: Path, sizes: dict[str, Any]) -> Qwen3Config:
    """A sentence-transformers folder with random weights; its tokenizer makes a token of each letter and an end."""
    torch.manual_seed(0)
    config = Qwen3Config(**sizes)
    Qwen3Model(config).to(torch.bfloat16).save_pretrained(folder)
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    end = (END, tokenizer.token_to_id(END))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[end])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=END, model_max_length=4096)
    wrapped.save_pretrained(folder)
    source = resolve_model(str(folder), pooling="last")
    write_pipeline(folder, source, source.use)
    return config


def random_examples(count: int, length: int) -> list[Example]:
    """Anchors, positives and negatives of random letters, `length` / 2 to `length` tokens each, the end included."""
    draw = random.Random(length)

    def text() -> str:
        return "".join(draw.choices(string.ascii_lowercase, k=draw.randint(length // 2, length) - 1))

    return [Example(text(), text(), (text(),)) for _ in range(count)]


def wait(device: torch.device) -> None:
    """Until the device has done all that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
