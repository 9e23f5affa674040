"""One backend of sentence-transformers, in its own environment: vectors of a run's texts, and texts per second.

`export.py` calls it, with the Python of that environment; it prints one line of JSON. It imports nothing of ours.

    PYTHON benchmarks/export_peer.py FOLDER BACKEND PRECISION TEXTS.json --work FOLDER [--vectors FILE.npz] [--speeds]
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

CALIBRATION = 300


def main() -> None:
    """Load the backend in this precision, encode or time, print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the model, as sentence-transformers reads it")
    parser.add_argument("backend", choices=["torch", "onnx", "openvino"])
    parser.add_argument("precision", choices=["float32", "bfloat16", "float16", "int8"])
    parser.add_argument("texts", type=Path, help="queries, documents, train and workloads")
    parser.add_argument("--work", type=Path, required=True, help="where exports are written")
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--speeds", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    given = json.loads(arguments.texts.read_text(encoding="utf-8"))
    model, size = load(arguments, given["train"])
    found: dict[str, Any] = {"bytes": size}
    if arguments.vectors:
        how = {"batch_size": 64, "show_progress_bar": False}
        queries = model.encode_query(given["queries"], **how)
        documents = model.encode_document(given["documents"], **how)
        np.savez(arguments.vectors, queries=queries, documents=documents)
    if arguments.speeds:
        found["speeds"] = {
            name: rate(lambda texts: model.encode_document(texts, batch_size=64, show_progress_bar=False), **workload)
            for name, workload in given["workloads"].items()
        }
    print(json.dumps(found))


def load(arguments: argparse.Namespace, train: list[str]) -> tuple[Any, int]:
    """The model, exported first if it is not yet; and the bytes of its weights."""
    import torch
    from sentence_transformers import SentenceTransformer

    backend, precision, threads = arguments.backend, arguments.precision, arguments.threads
    if backend == "torch":
        kind = {"dtype" if precision == "float32" else "torch_dtype": getattr(torch, precision)}
        model = SentenceTransformer(str(arguments.folder), device="cpu", model_kwargs=kind)
        return model, (arguments.folder / "model.safetensors").stat().st_size
    folder = arguments.work / f"peer-{backend}"
    if not folder.exists():
        SentenceTransformer(str(arguments.folder), device="cpu", backend=backend).save_pretrained(str(folder))
    options: dict[str, Any] = session_options(backend, threads)
    suffix = ""
    if precision == "int8":
        suffix = "qint8_avx512_vnni" if backend == "onnx" else "qint8_quantized"
        if not list(folder.rglob(f"*{suffix}*")):
            quantise(SentenceTransformer(str(folder), device="cpu", backend=backend), folder, backend, train)
    name = f"{backend}/" + ("model" if backend == "onnx" else "openvino_model") + (f"_{suffix}" if suffix else "")
    file = f"{name}.onnx" if backend == "onnx" else f"{name}.xml"
    model = SentenceTransformer(str(folder), device="cpu", backend=backend, model_kwargs={"file_name": file, **options})
    weights = folder / (file if backend == "onnx" else f"{name}.bin")
    return model, weights.stat().st_size


def session_options(backend: str, threads: int) -> dict[str, Any]:
    """So many threads."""
    if backend == "openvino":
        return {"ov_config": {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}}
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return {"session_options": options, "provider": "CPUExecutionProvider"}


def quantise(model: Any, folder: Path, backend: str, train: list[str]) -> None:
    """INT8 as sentence-transformers makes it: dynamic for ONNX, calibrated on training texts for OpenVINO."""
    import sentence_transformers

    if backend == "onnx":
        sentence_transformers.export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(folder))
        return
    from datasets import Dataset
    from optimum.intel import OVQuantizationConfig

    texts = train[:CALIBRATION]
    own = folder.parent / "peer-calibration"
    own.mkdir(exist_ok=True)
    Dataset.from_dict({"text": texts}).to_parquet(str(own / "train.parquet"))
    sentence_transformers.export_static_quantized_openvino_model(
        model,
        quantization_config=OVQuantizationConfig(num_samples=len(texts)),
        model_name_or_path=str(folder),
        dataset_name=str(own),
        dataset_config_name="default",
        dataset_split="train",
        column_name="text",
    )


def rate(encode: Any, texts: list[str], size: int, seconds: float) -> float:
    """Texts per second over calls of `size` texts; the first call, of one text, does not count."""
    starts = itertools.cycle(range(0, max(1, len(texts) - size + 1), size))
    encode(texts[:1])
    done, begun = 0, time.perf_counter()
    while True:
        start = next(starts)
        encode(texts[start : start + size])
        done += len(texts[start : start + size])
        if (spent := time.perf_counter() - begun) >= seconds:
            return done / spent


if __name__ == "__main__":
    main()
