"""Trained rerankers on disk: what is read again gives the same scores, here and in the libraries that others use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from acclimate.core import lora
from acclimate.errors import ModelError
from acclimate.formats.reranker_folder import resolve_reranker
from acclimate.models.reranker import Reranker
from acclimate.models.reranker_kinds import YES_NO_BODY, YES_NO_PREFIX, YES_NO_SUFFIX
from acclimate.models.reranker_saving import chat_template, save_reranker, save_reranker_adapter
from acclimate.runs.resolve import load as load_encoder
from acclimate.runs.resolve import reranker_source
from tests.conftest import shared_data
from tests.models import tiny

QUERIES = ["list files", "show disk usage", "x " * 80, "list files"]
TEXTS = ["in a folder", "memory", "sort lines " * 90, "水稻病虫害"]
INSTRUCTION = 'Find "shell" commands'
OPTIONS: dict[str, Any] = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module", params=["bert", "xlm-roberta", "qwen3"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "qwen3":
        return tiny.tiny_qwen3_reranker(folder, shared_data("tokenizers", "qwen_bpe"))
    return tiny.tiny_classifier(folder, request.param)


def trained(base: Path, **options: Any) -> Reranker:
    """The base with LoRA whose B is not zero."""
    if "qwen3" in base.name:
        options |= {"instruction": INSTRUCTION, "max_tokens": 130}
    reranker = Reranker.load(str(base), **OPTIONS, **options)
    model: Any = reranker.model
    lora.attach(model.base_model, ["all-linear"], rank=3, alpha=6.0, generator=torch.Generator().manual_seed(1))
    for layer in lora.lora_layers(model).values():
        torch.nn.init.normal_(layer.B, 0.0, 0.05)
    return reranker


@pytest.fixture(scope="module", params=["adapter", "whole"])
def saved(base: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """RUN/reranker, and the scores of what was written there."""
    torch.manual_seed(0)
    reranker = trained(base)
    scores = reranker.score_pairs(QUERIES, TEXTS)
    assert np.abs(scores - Reranker.load(str(base), **OPTIONS).score_pairs(QUERIES, TEXTS)).max() > 1e-3
    folder = tmp_path_factory.mktemp(f"run-{base.name}-{request.param}") / "reranker"
    folder.mkdir()
    if request.param == "adapter":
        save_reranker_adapter(folder, reranker, 3, 6.0, {"best_step": 1})
    else:
        save_reranker(folder, reranker, {"best_step": 1})
    return folder, scores


def test_what_is_read_again_scores_the_same(saved: tuple[Path, Any]) -> None:
    folder, scores = saved
    for name in (folder, folder.parent):
        again = Reranker.open(reranker_source(str(name)), **OPTIONS)
        assert np.abs(again.score_pairs(QUERIES, TEXTS) - scores).max() < 2e-5
        if "qwen3" in str(folder):
            assert again.kind.instruction == INSTRUCTION and again.max_tokens == 130
    assert (resolve_reranker(str(folder)).adapter is None) == ("whole" in str(folder))


def test_plain_transformers_or_peft_score_the_same(saved: tuple[Path, Any]) -> None:
    folder, scores = saved
    causal = "qwen3" in str(folder)
    if "adapter" in folder.parent.name:
        import peft

        kind: Any = peft.AutoPeftModelForCausalLM if causal else peft.AutoPeftModelForSequenceClassification
        model = kind.from_pretrained(folder).eval()
    else:
        model = (AutoModelForCausalLM if causal else AutoModelForSequenceClassification).from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = Reranker.load(str(folder), **OPTIONS)
    found = []
    for row in range(len(QUERIES)):
        with torch.no_grad():
            if causal:
                ids = torch.tensor(ours.tokenise([QUERIES[row]], [TEXTS[row]]).tokens.flat[None].astype(np.int64))
                logits = model(input_ids=ids).logits[0, -1]
                found.append((logits[9693] - logits[2152]).item())
            else:
                inputs = tokenizer(QUERIES[row], TEXTS[row], truncation=True, return_tensors="pt")
                found.append(model(**inputs).logits[0, 0].item())
    assert np.abs(np.array(found) - scores).max() < 2e-5


@pytest.mark.slow
def test_sentence_transformers_scores_the_same(saved: tuple[Path, Any]) -> None:
    from sentence_transformers import CrossEncoder

    folder, scores = saved
    theirs = CrossEncoder(str(folder), device="cpu")
    raw = theirs.predict(list(zip(QUERIES, TEXTS, strict=True)), activation_fn=torch.nn.Identity())
    assert np.abs(raw - scores).max() < 2e-5
    published = theirs.predict(list(zip(QUERIES, TEXTS, strict=True)))
    assert np.abs(published - 1 / (1 + np.exp(-scores))).max() < 1e-5


def test_the_chat_template_is_the_prompt() -> None:
    from jinja2 import Template

    messages = [{"role": "query", "content": "Q"}, {"role": "document", "content": "D"}]
    body = YES_NO_BODY.format(instruction=INSTRUCTION, query="Q", text="D")
    assert Template(chat_template(INSTRUCTION)).render(messages=messages) == YES_NO_PREFIX + body + YES_NO_SUFFIX
    told = Template(chat_template(INSTRUCTION)).render(messages=[{"role": "system", "content": "Other"}, *messages])
    assert "<Instruct>: Other\n" in told and INSTRUCTION not in told


def test_a_new_head_is_written_whole(tmp_path: Path) -> None:
    reranker = trained(tiny.tiny_bert(tmp_path / "bert"), head_seed=3)
    scores = reranker.score_pairs(QUERIES, TEXTS)
    (tmp_path / "run").mkdir()
    save_reranker(tmp_path / "run", reranker, {})
    again = Reranker.load(str(tmp_path / "run"), **OPTIONS)
    assert not again.source.headless and np.abs(again.score_pairs(QUERIES, TEXTS) - scores).max() < 2e-5


def test_another_base_is_refused_and_so_are_embedders(saved: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = saved
    with pytest.raises(ModelError, match="holds a reranker, no embedding model"):
        load_encoder(folder)
    if "adapter" in folder.parent.name and "bert" in folder.parent.name:
        with pytest.raises(ModelError, match="made for base"):
            Reranker.load(str(folder), base=str(tiny.tiny_reranker(tmp_path / "other", seed=9)))
