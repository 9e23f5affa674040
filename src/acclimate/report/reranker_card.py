"""What `export` reports of a reranker, and its model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from acclimate.evaluation.parity import ScoreParity
from acclimate.report.exported import Exported, proven

_INPUTS = (
    "takes `input_ids`, `attention_mask` and, where the architecture has them, `token_type_ids` (int64 [pairs, "
    "tokens], padded at the right) and gives `logits` [pairs, 1], raw, before any sigmoid"
)
_READERS = {
    "onnx": f"`onnx/model.onnx` {_INPUTS}.",
    "openvino": f"`openvino/openvino_model.xml` {_INPUTS}.",
    "sentence-transformers": "In sentence-transformers: `CrossEncoder(THIS_FOLDER).predict([(query, text)])`.",
}


class RerankerExportReport(Exported, total=False):
    """What `export` reports of a reranker."""

    kind: Literal["reranker"]
    base: Mapping[str, Any]
    """id and sha256 of the weights that it was made from."""
    max_tokens: int
    """Query, text and what is put around them together."""
    parity: ScoreParity
    """Scores before INT8, read by code that is not ours."""
    scores: ScoreParity
    """INT8 only: its scores against the model's."""


def render(report: RerankerExportReport) -> str:
    """Write the card in Markdown, with the hub's front matter."""
    parity, base = report["parity"], report["base"]
    precision = "float32" if report["precision"] == "int8" else report["precision"]
    parts = [
        _front_matter(str(base["id"])),
        "# A reranker\n",
        f"Made with Acclimate from `{base['id']}` (weights sha256 `{base['sha256']}`). It reads query and text "
        f"together and gives one score; higher is better. Pairs are cut at {report['max_tokens']} tokens.\n",
        f"## This export: {report['format']}, {report['precision']}\n",
        f"{_READERS[report['format']]}\n",
        f"Compared with the model that it was made from on {parity['pairs']} pairs, read by {parity['reader']}: the "
        f"largest difference of two scores in {precision} is {parity['max_difference']:.6f}, where they have a "
        f"standard deviation of {parity['spread']:.3f}.\n",
        proven(report["gate"], report["size"]) if "gate" in report else "",
        "## Licence\n\nThis model is made from the base model's weights, so the base model's licence applies to it, "
        "and the training data may add conditions of its own. Acclimate's licence (Apache-2.0) covers the tool only.\n",
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(base_id: str) -> str:
    lines = ["---", "library_name: sentence-transformers", "pipeline_tag: text-ranking"]
    # A folder's own name is no id on the hub, and the hub refuses a card that names an unknown base.
    lines += [f"base_model: {base_id}"] if "/" in base_id and not base_id.startswith("/") else []
    return "\n".join([*lines, "tags:", "- sentence-transformers", "- reranker", "- acclimate", "---\n"])
