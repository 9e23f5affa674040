"""sentence-transformers' view of a reranker's folder: plain JSON files, and a yes/no reranker's chat template."""

from __future__ import annotations

import json
from pathlib import Path

from acclimate.files import write_json, write_text

TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
YES_NO_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
YES_NO_BODY = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {text}"
YES_NO_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
"""As the model card of Qwen/Qwen3-Reranker-0.6B has them ("Transformers Usage"); its tokenizer adds nothing to them."""


def chat_template(instruction: str) -> str:
    """A yes/no reranker's prompt in Jinja, over the roles `system` (the instruction), `query` and `document`."""

    def of(role: str) -> str:
        return f'{{{{ messages | selectattr("role", "eq", "{role}") | map(attribute="content") | first }}}}'

    default = json.dumps(instruction, ensure_ascii=False)
    told = of("system").replace(" }}", f" | default({default}) }}}}")
    body = YES_NO_BODY.format(instruction=told, query=of("query"), text=of("document"))
    return YES_NO_PREFIX + body + YES_NO_SUFFIX + "\n"  # Jinja drops one newline at the very end


def write_view(folder: Path, answers: tuple[int, int] | None) -> None:
    """Write what sentence-transformers' CrossEncoder needs to know, into an existing folder.

    Args:
        folder: holds the model, or the adapter.
        answers: the token ids of "yes" and "no" of a yes/no reranker; None for a cross-encoder.
    """
    outputs = {"text": {"method": "forward", "method_output_name": "logits"}}
    modules = [{"idx": 0, "name": "0", "path": "", "type": TRANSFORMER}]
    if answers is not None:
        modules.append({"idx": 1, "name": "1", "path": "1_LogitScore", "type": LOGIT_SCORE})
        (folder / "1_LogitScore").mkdir(exist_ok=True)
        tokens = {"true_token_id": answers[0], "false_token_id": answers[1], "module_input_name": "causal_logits"}
        write_json(folder / "1_LogitScore" / "config.json", tokens)
        message = {"message": {**outputs["text"], "format": "flat"}}
        view = {"transformer_task": "text-generation", "module_output_name": "causal_logits"}
        view |= {"modality_config": outputs | message}  # type: ignore[dict-item]
    else:
        view = {"transformer_task": "sequence-classification", "module_output_name": "scores"}
        view |= {"modality_config": outputs}  # type: ignore[dict-item]
    write_text(folder / "modules.json", json.dumps(modules, indent=2) + "\n")
    write_json(folder / "sentence_bert_config.json", view)
    settings = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Sigmoid", "prompts": {}}
    write_json(folder / "config_sentence_transformers.json", settings)
