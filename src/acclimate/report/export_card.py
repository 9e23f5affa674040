"""What `export` reports, and what a model card says of it."""

from __future__ import annotations

from acclimate.evaluation.parity import Parity
from acclimate.report.exported import Exported, proven
from acclimate.report.summary import Base
from acclimate.types import Sides

_READERS = {
    "onnx": (
        "`onnx/model.onnx` takes `input_ids`, `attention_mask` and, where the architecture has them, `token_type_ids` "
        "(int64 [texts, tokens], padded at the right) and gives `sentence_embedding` (unit vectors, pooled) and "
        "`last_hidden_state`. Put the prompts of `config_sentence_transformers.json` before the texts."
    ),
    "openvino": (
        "`openvino/openvino_model.xml` takes `input_ids`, `attention_mask` and, where the architecture has them, "
        "`token_type_ids` (int64 [texts, tokens], padded at the right) and gives `sentence_embedding` (unit vectors, "
        "pooled). Put the prompts of `config_sentence_transformers.json` before the texts."
    ),
    "gguf": (
        "`gguf/model.gguf` is for llama.cpp (`llama-server --embeddings`, node-llama-cpp and others): tokenizer and "
        "pooling are in it, prompts are not. Put those of `config_sentence_transformers.json` before the texts, and "
        "cut longer texts yourself: llama.cpp refuses them."
    ),
}


class ExportReport(Exported, total=False):
    """What `export` reports of an embedding model."""

    base: Base
    sides: Sides
    models: int
    """2 where queries have a model of their own."""
    dim: int
    parity: Parity
    """Vectors before INT8, read by code that is not ours; missing where it is not here (llama.cpp)."""
    cosine: Parity
    """INT8 only: its vectors against the model's, each role's texts in one batch."""
    alone: Parity
    """INT8 only: the same, each text in a batch of its own, as a service answers."""


def render(report: ExportReport) -> str:
    """Write the section of a model card about the export, in Markdown."""
    parts = [
        f"## This export: {report['format']}, {report['precision']}\n",
        f"{_READERS[report['format']]}\n" if report["format"] in _READERS else "",
        _two_models(report),
        _compared(report),
        _proof(report) if "gate" in report else "",
    ]
    return "\n" + "\n".join(part for part in parts if part)


def _compared(report: ExportReport) -> str:
    if "parity" not in report:
        return "**Not compared** with the model that it was made from: the program that reads it was not there.\n"
    parity, precision = report["parity"], "float32" if report["precision"] == "int8" else report["precision"]
    return (
        f"Compared with the model that it was made from on {parity['texts']} texts, up to the limit of tokens, read by "
        f"{parity['reader']}: the smallest cosine in {precision} is {parity['min_cosine']:.6f}.\n"
    )


def _two_models(report: ExportReport) -> str:
    if report["models"] == 1:
        return ""
    return (
        "It is two models: `query_0_Transformer` for queries, `document_0_Transformer` for documents, whose vectors "
        "are the base model's own. A reader that knows only one model has to be given the right one for each side.\n"
    )


def _proof(report: ExportReport) -> str:
    cosine = report["cosine"]
    return proven(report["gate"], report["size"]) + (
        f"The cosine of its vectors with float32's is {cosine['mean_cosine']:.4f} on average, and "
        f"{cosine['min_cosine']:.4f} at least; encoded alone, {report['alone']['mean_cosine']:.4f} on average.\n"
    )
