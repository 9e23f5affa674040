"""Exports of a run's model, every backend and precision: size, NDCG@10, cosine, texts per second; beside its peer.

    python benchmarks/export.py RUN --out FOLDER quality [--peer-onnx PYTHON] [--peer-openvino PYTHON]
    python benchmarks/export.py RUN --out FOLDER speed [--peer-onnx PYTHON] [--peer-openvino PYTHON] [--threads 1]
    python benchmarks/export.py RUN --out FOLDER table

quality writes the exports (INT8 also where the gate refuses it) and measures each on the whole test split: NDCG@10,
the interval of its paired difference to float32, and the mean cosine of document vectors with float32's. What is
finished is not done again. speed times all of them one after the other, on texts of 12 and of 200 tokens: one text,
64 texts, bulk. Torch computes with the run's adapter live; "folded" is the same model without one. RUN is only read,
apart from its cache of vectors: give a copy.

The peers are sentence-transformers' own backends on the folder that `export` writes for it, each run by the Python of
an environment of its own, because optimum lags behind transformers:

    python -m venv A && A/bin/pip install 'sentence-transformers[onnx]<6' 'transformers<5' 'optimum-onnx[onnxruntime]'
    python -m venv B && B/bin/pip install 'sentence-transformers>=6' 'transformers<5.6' 'optimum-intel[openvino]'
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acclimate.configs import RunConfig
from acclimate.core.int8_linear import Int8Linear
from acclimate.cpu import cpu_facts
from acclimate.data.dataset import Dataset, load_dataset
from acclimate.data.facts import evenly
from acclimate.errors import ModelError
from acclimate.evaluation.compare import judged_queries
from acclimate.evaluation.gate import gate_of_vectors
from acclimate.files import read_json, write_json
from acclimate.models.backends.engine_encoder import EngineEncoder
from acclimate.models.text_encoder import TextEncoder
from acclimate.runs.opening import load_base
from acclimate.runs.resolve import load
from acclimate.stages.export import export
from common import table
from export_peer import rate

EXPORTS: dict[str, dict[str, Any]] = {
    "sentence-transformers": {},
    "onnx float32": {"format": "onnx"},
    "onnx int8": {"format": "onnx", "int8": True},
    "openvino float32": {"format": "openvino"},
    "openvino float16": {"format": "openvino", "float16": True},
    "openvino int8": {"format": "openvino", "int8": True},
}
"""Name -> settings of `export`; the first one is what the peers read."""
PEERS = {
    "onnx": [("torch", "float32"), ("torch", "bfloat16"), ("onnx", "float32"), ("onnx", "int8")],
    "openvino": [("openvino", "float32"), ("openvino", "int8")],
}
"""Environment -> its backends and precisions."""
BULK = {12: 512, 200: 128}
"""Tokens of a text -> texts of one bulk call."""
SECONDS = 2.0


def main() -> None:
    """Do what is asked, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("what", choices=["quality", "speed", "table"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peer-onnx", type=Path)
    parser.add_argument("--peer-openvino", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = load_dataset(arguments.run / "dataset")
    peers = {"onnx": arguments.peer_onnx, "openvino": arguments.peer_openvino}
    if arguments.what == "quality":
        quality(arguments.run, arguments.out, data, {name: path for name, path in peers.items() if path})
    elif arguments.what == "speed":
        speed(arguments.run, arguments.out, data, peers, arguments.threads)
    show(arguments.out)


def quality(run: Path, out: Path, data: Dataset, peers: Mapping[str, Path]) -> None:
    """Write the exports, measure them and the peers on the test split; `out/quality.json` grows row by row."""
    for name, settings in EXPORTS.items():
        if not (out / name.replace(" ", "-")).exists():
            written(run, out / name.replace(" ", "-"), settings)
    reference = load(run, device="cpu", dtype="float32")
    test = judged(data)
    texts = texts_file(out, data, reference, test)
    rows: dict[str, Any] = read_json(out / "quality.json") if (out / "quality.json").exists() else {}
    expected: dict[str, Any] = {}

    def measure(name: str, vectors: Callable[[], Mapping[str, Any]], size: int, more: Mapping[str, Any]) -> None:
        if name in rows:
            return
        if not expected:
            expected.update(vectors_of(reference, test))
        found = vectors()
        cosine = float(np.einsum("nd,nd->n", found["documents"], expected["documents"]).mean())
        before, after = ((side["queries"], side["documents"]) for side in (expected, found))
        gate = gate_of_vectors(test, "test", before, after, RunConfig().evaluate, loss=0.02, seed=0)
        rows[name] = {"gate": gate, "cosine": cosine, "bytes": size, **more}
        write_json(out / "quality.json", rows)
        print(f"{name}: {gate['int8']:.4f}", flush=True)

    weights = (out / "sentence-transformers" / "model.safetensors").stat().st_size
    measure("torch float32", lambda: expected, weights, {})
    for dtype, size in (("bfloat16", weights // 2), ("int8", int8_bytes(run))):
        measure(f"torch {dtype}", lambda dtype=dtype: vectors_of(load(run, device="cpu", dtype=dtype), test), size, {})
    for name in list(EXPORTS)[1:]:
        folder = out / name.replace(" ", "-")
        report = read_json(folder / "report.json")
        more = {"export": {key: report[key] for key in ("gate", "parity", "timings") if key in report}}
        measure(name, lambda folder=folder: vectors_of(EngineEncoder.open(folder), test), report["bytes"], more)
    for environment, backend, precision in peer_backends(peers):
        name = f"peer {backend} {precision}"
        if name not in rows:
            file = out / "peer.npz"
            found = peer(peers[environment], out, backend, precision, texts, "--vectors", str(file))
            measure(name, lambda file=file: np.load(file), found["bytes"], {})


def written(run: Path, folder: Path, settings: Mapping[str, Any]) -> None:
    """Export; an INT8 model that the gate refuses is written too, and marked."""
    config = RunConfig()
    config = replace(config, export=replace(config.export, **settings))
    try:
        export(run, folder, config)
    except ModelError as error:
        if "gate" not in str(error):
            raise
        print(error, flush=True)
        export(run, folder, config, force=True)


def speed(run: Path, out: Path, data: Dataset, peers: Mapping[str, Path | None], threads: int) -> None:
    """Time what `quality` has written, one after the other; `out/speed.json`."""
    texts = texts_file(out, data, load(run, device="cpu", dtype="float32"), judged(data))
    workloads = json.loads(texts.read_text())["workloads"]
    openers: dict[str, Callable[[], TextEncoder]] = {
        f"torch {dtype}": lambda dtype=dtype: load(run, device="cpu", dtype=dtype)
        for dtype in ("float32", "bfloat16", "int8")
    }
    folded = str(out / "sentence-transformers")
    openers |= {
        f"torch {dtype}, folded": lambda dtype=dtype: load(folded, device="cpu", dtype=dtype)
        for dtype in ("bfloat16", "int8")
    }
    openers |= {
        name: lambda name=name: EngineEncoder.open(out / name.replace(" ", "-"), threads=threads)
        for name in list(EXPORTS)[1:]
    }
    rows: dict[str, Any] = {}
    for name, opened in openers.items():
        encoder = opened()
        rows[name] = {work: rate(encoder.encode, **given) for work, given in workloads.items()}
        print(name, {work: round(found, 1) for work, found in rows[name].items()}, flush=True)
    there = {name: path for name, path in peers.items() if path}
    for environment, backend, precision in peer_backends(there):
        how = ["--speeds", "--threads", str(threads)]
        name = f"peer {backend} {precision}"
        rows[name] = peer(there[environment], out, backend, precision, texts, *how)["speeds"]
        print(name, {work: round(found, 1) for work, found in rows[name].items()}, flush=True)
    write_json(out / "speed.json", {"machine": cpu_facts()["model name"], "threads": threads, "rows": rows})


def judged(data: Dataset) -> Dataset:
    """The data with the judged queries of the test split alone."""
    queries, qrels = judged_queries(data)
    return replace(data, queries=queries, qrels={"test": qrels})


def int8_bytes(run: Path) -> int:
    """Bytes of a run's base in INT8 in torch: 1 for each number in 8 bits, scales in float32, the rest in 16 bits."""
    model = load_base(run / "adapter", device="cpu", dtype="int8").model
    small = sum(buffer.nbytes for buffer in model.buffers() if not buffer.is_mkldnn)
    products = [module for module in model.modules() if isinstance(module, Int8Linear)]
    return small + sum(p.nbytes for p in model.parameters()) + sum(m.in_features * m.out_features for m in products)


def vectors_of(encoder: TextEncoder, test: Dataset) -> dict[str, Any]:
    """Vectors of the test queries and of the corpus."""
    queries, documents = list(test.queries.values()), list(test.corpus.values())
    return {"queries": encoder.encode(queries, "query"), "documents": encoder.encode(documents)}


def texts_file(out: Path, data: Dataset, encoder: TextEncoder, test: Dataset) -> Path:
    """What the peers read: queries, documents, training texts, and the workloads, by tokens and texts of a call."""
    file = out / "texts.json"
    if file.exists():
        return file
    documents = list(test.corpus.values())
    workloads = {}
    for tokens, bulk in BULK.items():
        texts = of_length(encoder, documents, tokens, 2 * bulk)
        for name, size in (("one", 1), ("64", 64), ("bulk", bulk)):
            workloads[f"{tokens} tokens, {name}"] = {"texts": texts, "size": size, "seconds": SECONDS}
    train = evenly([row.positive for row in data.examples], 300)
    queries = list(test.queries.values())
    found = {"queries": queries, "documents": documents, "train": train, "workloads": workloads}
    file.write_text(json.dumps(found), encoding="utf-8")
    return file


def of_length(encoder: TextEncoder, documents: list[str], tokens: int, count: int) -> list[str]:
    """Texts of about so many tokens: words of the documents, one after the other."""
    words: Iterator[str] = iter(" ".join(documents * 10).split())
    texts = []
    while len(texts) < count:
        text = next(words)
        while encoder.tokenise([text]).lengths[0] < tokens:
            text += f" {next(words)}"
        texts.append(text)
    return texts


def peer_backends(peers: Mapping[str, Path]) -> Iterator[tuple[str, str, str]]:
    """Environment, backend, precision of all peers that are there."""
    return ((name, *backend) for name, backends in PEERS.items() if name in peers for backend in backends)


def peer(python: Path, out: Path, backend: str, precision: str, texts: Path, *how: str) -> dict[str, Any]:
    """What a backend of sentence-transformers finds, in its environment."""
    script = str(Path(__file__).with_name("export_peer.py"))
    place = [str(out / "sentence-transformers"), backend, precision, str(texts), "--work", str(out)]
    done = subprocess.run([str(python), script, *place, *how], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"peer {backend} {precision}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def show(out: Path) -> None:
    """Print both tables in Markdown."""
    if (out / "quality.json").exists():
        rows = read_json(out / "quality.json")
        whole = rows["torch float32"]["bytes"]
        cells = []
        for name, row in rows.items():
            gate = row["gate"]
            delta = gate["delta"]
            change = f"{delta['value']:+.4f} [{delta['low']:+.4f}, {delta['high']:+.4f}]"
            size = f"{row['bytes'] / 1e6:.1f} MB ({row['bytes'] / whole:.0%})"
            cells.append([name, size, f"{gate['int8']:.4f}", change, f"{row['cosine']:.4f}"])
        print(table(["backend", "weights", "NDCG@10", "change to float32", "mean cosine"], cells))
    if (out / "speed.json").exists():
        found = read_json(out / "speed.json")
        print(f"\n{found['machine']}, threads: {found['threads']}; texts per second")
        works = list(next(iter(found["rows"].values())))
        shown = [[name, *(f"{row[work]:,.1f}" for work in works)] for name, row in found["rows"].items()]
        print(table(["backend", *works], shown))


if __name__ == "__main__":
    main()
