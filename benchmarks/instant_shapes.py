"""Generated LoRA for the shapes of Qwen3-Embedding-0.6B: memory, seconds, and whether PEFT loads it.

    python benchmarks/instant_shapes.py --out FOLDER [--generators core-modulation text-to-lora drag-and-drop]

The base is random: a Qwen3 with that model's layers (28 of them, 1,024 wide, 196 linear layers) and a vocabulary of a
few words, for no LoRA lies in the embeddings. The hypernetworks are random, too, and every weight is moved from 0, so
that what is generated is not zero. Each is loaded and called in a process of its own; `acclimate generate` writes an
adapter, PEFT loads it over the base, and its vectors are compared with ours. Every part is kept in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from acclimate.configs.hypernetwork import RIVALS, GeneratorName
from acclimate.formats import sentence_transformers
from acclimate.formats.sources import resolve_model
from acclimate.models.adapter import load_adapter
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import Condition
from acclimate.models.hypernetwork.generate import NetworkHypernetwork
from acclimate.models.hypernetwork.layers import layers_of
from acclimate.models.hypernetwork.network import GENERATORS, Architecture, Network
from acclimate.models.hypernetwork.saving import TrainedNetwork, load_network, save_network
from acclimate.prompts import Prompts
from acclimate.text_use import TextUse
from common import machine, once, processor, table

LAYERS = 28
SHAPES = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
}
WORDS = ["find", "the", "same", "kind", "of", "request", "wheat", "rain"]
SPECIAL = ["[PAD]", "[UNK]", "[END]"]
MOVED = 0.02
TEXTS = ["wheat rain", "the same kind of wheat", "rain"]
DESCRIPTION = "find the same kind of request"
CALLS = 5


def main() -> None:
    """Measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    names = [name for name in GENERATORS if name not in RIVALS]
    parser.add_argument("--generators", nargs="+", choices=names, default=names)
    parser.add_argument("--layers", type=int, default=LAYERS, help="fewer, to try the script")
    parser.add_argument("--call", type=Path, help=argparse.SUPPRESS)  # a hypernetwork, in a process of its own
    arguments = parser.parse_args()
    base = arguments.out / "base"
    if arguments.call:
        print(json.dumps(called(base, arguments.call)))
        return
    if not (base / "modules.json").exists():
        write_base(base, arguments.layers)
    rows = []
    for name in arguments.generators:
        once(arguments.out / name, partial(measured, arguments.out, name))
        found = json.loads((arguments.out / name / "result.json").read_text())
        rows.append([name, *(str(value) for value in found.values())])
    header = [
        "generator",
        "parameters, M",
        "hypernetwork, MB",
        "loaded, s",
        "first call, s",
        "later, s",
        "of which the description, s",
        "more memory, MB",
    ]
    print(f"{processor()}; {machine()}\n")
    print(table([*header, "adapter, MB", "PEFT less ours, largest", "ours less base, largest"], rows))


def write_base(folder: Path, layers: int) -> None:
    """A random model of these shapes, as a sentence-transformers folder."""
    torch.manual_seed(0)
    vocabulary = [*SPECIAL, *WORDS]
    sizes = {"max_position_embeddings": 64, "pad_token_id": 0, "num_hidden_layers": layers, **SHAPES}
    config = Qwen3Config(vocab_size=len(vocabulary), **sizes)
    folder.mkdir(parents=True)
    Qwen3Model(config).to(torch.bfloat16).save_pretrained(folder)
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    end = vocabulary.index("[END]")
    inner.post_processor = processors.TemplateProcessing(single="$A [END]", special_tokens=[("[END]", end)])
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[END]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **tokens).save_pretrained(folder)
    use = TextUse(Prompts({"": "find : "}, {"": ""}), "last", SHAPES["hidden_size"], 32)
    sentence_transformers.write_pipeline(folder, resolve_model(str(folder), pooling="last"), use)


def measured(out: Path, name: GeneratorName) -> dict[str, Any]:
    """One hypernetwork: written, called in a process of its own, its adapter read by PEFT."""
    encoder, folder = Encoder.load(str(out / "base"), device="cpu", dtype="float32"), out / name
    network = Network(Architecture(generator=name, dim=SHAPES["hidden_size"]), layers_of(encoder.model))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.generator.parameters():
            parameter += MOVED * torch.randn(parameter.shape, generator=generator)
    source = encoder.source
    (folder / "network").mkdir(exist_ok=True)
    trained = TrainedNetwork(
        network=network,
        base_id=source.id,
        base_sha256=source.sha256,
        use=encoder.use,
        normalise=source.files.normalise,
        sides="query",
    )
    save_network(folder / "network", trained)
    command = [sys.executable, __file__, "--out", str(out), "--call", str(folder / "network")]
    called_there = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    adapter, words = folder / "adapter", ["--model", str(out / "base"), "--device", "cpu", "--dtype", "float32"]
    generate = ["generate", "--hypernetwork", str(folder / "network"), "--describe", DESCRIPTION, "--out", str(adapter)]
    subprocess.run([sys.executable, "-m", "acclimate", *generate, *words], check=True, stdout=sys.stderr)
    return {
        "parameters": round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1),
        "megabytes": round(_megabytes(folder / "network"), 1),
        **called_there,
        "adapter": round(_megabytes(adapter), 1),
        **through_peft(encoder, adapter),
    }


def called(base: Path, folder: Path) -> dict[str, float]:
    """Seconds of loading and of calls, how many of them the description's encoding takes, and the memory they add."""
    encoder = Encoder.load(str(base), device="cpu", dtype="float32")
    encoder.encode([DESCRIPTION], "query")
    before, begun = psutil.Process().memory_info().rss, time.perf_counter()
    encoder.encode([DESCRIPTION], "query")
    encoding = time.perf_counter() - begun
    started = time.perf_counter()
    hypernetwork = NetworkHypernetwork(load_network(folder), encoder)
    loaded = time.perf_counter()
    seconds = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        adapter = hypernetwork.generate(Condition(description=DESCRIPTION))
        seconds.append(time.perf_counter() - begun)
    more = (psutil.Process().memory_info().rss - before) / 2**20
    del adapter  # which was to be counted
    return {
        "loaded_s": round(loaded - started, 2),
        "first_s": round(seconds[0], 3),
        "later_s": round(sorted(seconds[1:])[len(seconds[1:]) // 2], 3),
        "encoding_s": round(encoding, 3),
        "more_megabytes": round(more),
    }


def through_peft(encoder: Encoder, folder: Path) -> dict[str, str]:
    """Largest differences of query vectors: PEFT's reading of an adapter from ours, and ours from the base."""
    from peft import PeftModel

    expected = encoder.with_adapter(load_adapter(folder)).encode(TEXTS, "query")
    inside = next(path.parent for path in sorted(folder.rglob("adapter_config.json")))
    plain = Encoder.load(str(encoder.source.files.transformer), device="cpu", dtype="float32")
    plain.model = PeftModel.from_pretrained(plain.model, str(inside)).base_model.model.eval()
    found, base = plain.encode(TEXTS, "query"), encoder.encode(TEXTS, "query")
    return {"peft": f"{abs(found - expected).max():.1e}", "moved": f"{abs(expected - base).max():.1e}"}


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


if __name__ == "__main__":
    main()
