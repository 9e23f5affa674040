"""The training steps on a tiny BERT: against the plain way of computing the same loss, one text at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from acclimate.configs import ObjectiveConfig, RunConfig, TrainConfig, with_overrides
from acclimate.core.lora import attach, trainable_parameters
from acclimate.data.held_out import HeldOut
from acclimate.errors import DataError
from acclimate.models import devices
from acclimate.models.encoder import Encoder
from acclimate.prompts import Prompts
from acclimate.training.gradcache import activation_bytes_per_token
from acclimate.training.objectives import draw_negatives, info_nce, pair_loss
from acclimate.training.references import References, load_references
from acclimate.training.schedule import TaskSchedule
from acclimate.training.step_texts import Options, StepTexts
from acclimate.types import Example, Role
from tests.tiny_run import write_tiny_bert

CONFIG = with_overrides(
    RunConfig(), {"batch_size": 5, "group_size": 2, "temperature": 0.1, "false_negative_margin": 0.1}
)


def sections(config: RunConfig) -> tuple[ObjectiveConfig, TrainConfig]:
    """What a recipe reads of a config."""
    return config.objective, config.train


def changed(**settings: Any) -> RunConfig:
    """`CONFIG` with other settings."""
    return with_overrides(CONFIG, settings)


SCHEDULE = TaskSchedule(examples=5, batch_size=5, epochs=1, seed=7, learning_rate=1e-3, warmup_fraction=0.1)
EXAMPLES = [
    Example("w0 w1", "w10 w11 w12", ("w20", "w21 w22")),
    Example("w0 w1", "w13", ("w23",)),  # the same anchor: the first one's positive is no negative
    Example("w2 w3 w4", "w10 w11 w12", ("w24 w25", "w0 w1")),  # the same positive, another's anchor as a negative
    Example("w5", "w14 w15", ("w5", "w26")),  # its own anchor as a negative
    Example("w6 w7", "w16", ()),
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture
def encoder(model_folder: Path) -> Iterator[Encoder]:
    found = Encoder.load(str(model_folder), pooling="mean", device="cpu", dtype="float32")
    found.model.double()
    yield found


def with_lora(encoder: Encoder, dropout: float = 0.0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    for layer in attach(encoder.model, ["all-linear"], rank=2, dropout=dropout, generator=generator).values():
        layer.double()
        nn.init.normal_(layer.B, std=0.3, generator=generator)
    return trainable_parameters(encoder.model)


def gradients(trainable: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in trainable.items() if parameter.grad is not None}
    assert len(found) == len(trainable)
    for parameter in trainable.values():
        parameter.grad = None
    return found


def vector(encoder: Encoder, text: str, role: Role) -> Tensor:
    return encoder.forward_tokens(encoder.tokenise([text], role), np.array([0]))[0]


def plain_info_nce(encoder: Encoder, config: RunConfig) -> Tensor:
    """The same loss, written as loops over the rows of step 0."""
    rows = [int(row) for row in SCHEDULE.batch(0)]
    count = config.train.group_size - 1
    drawn = {row: draw_negatives(EXAMPLES[row], count, SCHEDULE.seed, 0, row).negatives for row in rows}
    documents = {EXAMPLES[row].positive for row in rows} | {text for row in rows for text in drawn[row]}
    losses = []
    for row in rows:
        example = EXAMPLES[row]
        query = vector(encoder, example.anchor, "query")
        cosine = {text: query @ vector(encoder, text, "document") for text in documents}
        others = {e.positive for e in EXAMPLES if e.anchor == example.anchor} | {example.anchor}
        threshold = cosine[example.positive].item() + (config.objective.false_negative_margin or 0.0)
        logits = []
        for text, value in cosine.items():
            spared = text in drawn[row] and not config.objective.mask_mined
            likely = config.objective.false_negative_margin is not None and value.item() > threshold and not spared
            if text == example.positive or not (text in others or likely):
                logits.append(value / config.objective.temperature)
        losses.append(torch.logsumexp(torch.stack(logits), 0) - cosine[example.positive] / config.objective.temperature)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("margin", [None, -0.2, 0.0])
@pytest.mark.parametrize("mask_mined", [False, True])
@pytest.mark.parametrize("memory_gb", [1e-9, 1.0])
def test_contrastive_equals_loops_over_rows(
    encoder: Encoder, margin: float | None, mask_mined: bool, memory_gb: float
) -> None:
    config = changed(false_negative_margin=margin, mask_mined=mask_mined, activation_memory_gb=memory_gb)
    trainable = with_lora(encoder)
    expected_loss = plain_info_nce(encoder, config)
    expected_loss.backward()
    expected = gradients(trainable)
    result = info_nce(encoder, EXAMPLES, SCHEDULE, *sections(config))(0)
    assert result.loss == pytest.approx(expected_loss.item(), rel=1e-5)
    for name, gradient in gradients(trainable).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_the_margin_changes_something_here(encoder: Encoder) -> None:
    with_lora(encoder)
    configs = [
        changed(false_negative_margin=margin, mask_mined=mined)
        for margin, mined in ((None, False), (-0.2, False), (-0.2, True))
    ]
    losses = {info_nce(encoder, EXAMPLES, SCHEDULE, *sections(config))(0).loss for config in configs}
    assert len(losses) == 3


def test_a_task_has_its_own_prompts_and_its_weight_scales_the_gradient(encoder: Encoder) -> None:
    encoder.use = dataclasses.replace(encoder.use, prompts=Prompts({"one": "w50 "}, {"one": "w51 w52 "}))
    trainable = with_lora(encoder)
    found = []
    for weight in (1.0, 2.5):
        loss_fn = info_nce(
            encoder, EXAMPLES, SCHEDULE, *sections(changed(group_size=1)), Options(task="one", weight=weight)
        )
        found.append((loss_fn(0), gradients(trainable)))
    (result, gradient), (weighted, scaled) = found
    anchors, positives = {e.anchor for e in EXAMPLES}, {e.positive for e in EXAMPLES}
    assert result.tokens == sum(1 + len(text.split()) for text in anchors) + sum(2 + len(t.split()) for t in positives)
    assert weighted.loss == pytest.approx(result.loss)
    for name, values in gradient.items():
        torch.testing.assert_close(scaled[name], 2.5 * values)


def test_tokens_are_counted_once_per_unique_text(encoder: Encoder) -> None:
    with_lora(encoder)
    config = changed(group_size=1)
    texts = {example.anchor for example in EXAMPLES} | {example.positive for example in EXAMPLES}
    assert info_nce(encoder, EXAMPLES, SCHEDULE, *sections(config))(0).tokens == sum(
        len(text.split()) for text in texts
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_passes_have_the_same_dropout(
    encoder: Encoder, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if checkpointing:
        encoder.model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    trainable = with_lora(encoder, dropout=0.4)
    monkeypatch.setitem(devices.CHUNK_TOKENS, "cpu", 6)
    found = []
    per_token = activation_bytes_per_token(encoder.model.config, 8, checkpointing)
    for memory_gb in (1.0, 6.5 * per_token / 1e9):
        config = changed(activation_memory_gb=memory_gb, gradient_checkpointing=checkpointing)
        loss_fn = info_nce(encoder, EXAMPLES, SCHEDULE, *sections(config))
        found.append((loss_fn(0).loss, gradients(trainable)))
    assert found[0][0] == found[1][0]
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], rtol=1e-10, atol=1e-12)


def test_fixed_documents_get_no_gradient_and_are_looked_up(encoder: Encoder) -> None:
    texts = {text for e in EXAMPLES for text in (e.positive, *e.negatives)}
    with torch.no_grad():
        fixed = {text: vector(encoder, text, "document").float().numpy() for text in texts}
    trainable = with_lora(encoder)
    result = info_nce(
        encoder,
        EXAMPLES,
        SCHEDULE,
        CONFIG.objective,
        CONFIG.train,
        Options(references=References(document_vectors=fixed)),
    )(0)
    assert result.tokens == sum(len(text.split()) for text in {example.anchor for example in EXAMPLES})

    # By hand: all negatives of all rows are candidates, because they cost nothing.
    documents = sorted(texts)
    document_MD = torch.from_numpy(np.stack([fixed[text] for text in documents]))
    losses = []
    for example in EXAMPLES:
        cosine_M = document_MD @ vector(encoder, example.anchor, "query")
        target = documents.index(example.positive)
        others = {e.positive for e in EXAMPLES if e.anchor == example.anchor} | {example.anchor}
        kept = [
            column
            for column, text in enumerate(documents)
            if column == target
            or (text not in others and (text in example.negatives or cosine_M[column] <= cosine_M[target] + 0.1))
        ]
        losses.append(torch.logsumexp(cosine_M[kept] / 0.1, 0) - cosine_M[target] / 0.1)
    expected = torch.stack(losses).mean()
    assert result.loss == pytest.approx(expected.item(), rel=1e-5)
    found = gradients(trainable)
    expected.backward()
    for name, gradient in gradients(trainable).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_similarity_equals_a_loop(encoder: Encoder) -> None:
    rows = [("w1 w2", "w3", 0.9), ("w4", "w5 w6 w7", 0.1), ("w1 w2", "w8", 0.5)]
    examples = [Example(first, second, label=label) for first, second, label in rows]
    schedule = replace(SCHEDULE, examples=3, batch_size=3)
    trainable = with_lora(encoder)
    expected = torch.stack(
        [(vector(encoder, a, "query") @ vector(encoder, b, "query") - label) ** 2 for a, b, label in rows]
    ).mean()
    expected.backward()
    wanted = gradients(trainable)
    result = pair_loss(encoder, examples, schedule, *sections(changed(loss="cosine-mse")))(0)
    assert result.loss == pytest.approx(expected.item(), rel=1e-5)
    assert result.tokens == 2 + 1 + 1 + 3 + 1
    for name, gradient in gradients(trainable).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("roles", [("query", "query"), ("query", "document")])
def test_both_texts_of_a_labelled_pair_have_the_roles_that_the_options_say(
    encoder: Encoder, roles: tuple[Role, Role]
) -> None:
    """InfoNCE trains in the roles in which evaluation encodes them; the loss by hand, over in-batch negatives."""
    encoder.use = encoder.use.changed(query_prompt="w30 ", document_prompt="w31 ")
    rows = [("w1 w2", "w3"), ("w4", "w5 w6 w7"), ("w8", "w9")]
    examples = [Example(first, second, label=1.0) for first, second in rows]
    config = changed(temperature=0.1, false_negative_margin=None)
    with_lora(encoder)
    first, second = (
        torch.stack([vector(encoder, row[place], role) for row in rows]) for place, role in enumerate(roles)
    )
    expected = nn.functional.cross_entropy(first @ second.T / 0.1, torch.arange(3))
    schedule = replace(SCHEDULE, examples=3, batch_size=3)
    result = info_nce(encoder, examples, schedule, *sections(config), Options(roles=roles))(0)
    assert result.loss == pytest.approx(expected.item(), rel=1e-5)


def test_drawn_negatives_are_a_function_of_seed_pass_and_example() -> None:
    example = Example("a", "b", tuple("cdefgh"), scores=(9.0, *map(float, map(ord, "cdefgh"))))
    draws = [draw_negatives(example, 2, seed=1, epoch=epoch, number=3) for epoch in range(20)]
    assert draws == [draw_negatives(example, 2, seed=1, epoch=epoch, number=3) for epoch in range(20)]
    assert all(len(set(draw.negatives)) == 2 for draw in draws)
    assert {text for draw in draws for text in draw.negatives} == set("cdefgh")
    assert all(draw.scores == (9.0, *(float(ord(text)) for text in draw.negatives)) for draw in draws)
    assert draw_negatives(example, 9, 1, 0, 0) == draw_negatives(example, None, 1, 0, 0) == example


def retaining(tmp_path: Path, *texts: str) -> RunConfig:
    """`CONFIG` with a file of texts to be retained."""
    path = tmp_path / "other.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    return changed(retain_data=str(path))


def test_given_texts_are_retained_and_nothing_else(encoder: Encoder, tmp_path: Path) -> None:
    config = retaining(tmp_path, "w30 w31", "w32")  # of a batch of five a step takes two: both
    base = {text: vector(encoder, text, "query").detach() for text in ("w30 w31", "w32")}
    with_lora(encoder)
    references = load_references(config.objective, encoder)
    result = info_nce(encoder, EXAMPLES, SCHEDULE, *sections(config), Options(references=references))(0)
    plain = info_nce(encoder, EXAMPLES, SCHEDULE, *sections(CONFIG))(0)
    distances = [1 - base[text] @ vector(encoder, text, "query") for text in base]
    assert result.loss == pytest.approx(plain.loss + 20 * float(torch.stack(distances).mean().detach()), rel=1e-6)
    assert float(result.metrics["retain_distance"]) == pytest.approx((result.loss - plain.loss) / 20, rel=1e-6)
    assert result.tokens == plain.tokens + 3


def test_retained_texts_are_drawn_anew_in_every_step(encoder: Encoder, tmp_path: Path) -> None:
    with_lora(encoder)
    config = retaining(tmp_path, *(f"w{number}" for number in range(20, 60)))
    bank = StepTexts(encoder, [], *sections(config), 3, Options(references=load_references(config.objective, encoder)))
    drawn = [tuple(bank._retained_in_step(step)) for step in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert all(len(set(numbers)) == 2 for numbers in drawn)


def holding(*queries: str) -> HeldOut:
    held = HeldOut()
    held.add_queries(queries)
    return held


def test_held_out_texts_are_not_retained(encoder: Encoder, tmp_path: Path) -> None:
    config = retaining(tmp_path, "w30 w31", "W32", "w33")
    assert load_references(config.objective, encoder, held_out=holding("w32", "w33 ?")).retained == ("w30 w31",)
    with pytest.raises(DataError, match="no text but those of dev and test queries"):
        load_references(config.objective, encoder, held_out=holding("w30 w31", "w32", "w33"))
