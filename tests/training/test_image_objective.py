"""InfoNCE with several positives, a projection's step, its resumption, and mined negatives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.configs import ImagesConfig, TrainConfig
from acclimate.core.losses.multi_positive import multi_positive_info_nce
from acclimate.mining.image_negatives import mine_texts
from acclimate.models.projection import ProjectionHead, project
from acclimate.training.fit import fit
from acclimate.training.image_objective import ImageExamples, drawn, image_objective, trainable_parameters
from acclimate.training.schedule import TaskSchedule


def test_other_positives_are_neither_found_nor_pushed_away() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.5], [0.1, 3.0, 0.2]])
    positive = torch.tensor([[True, True, False], [False, True, False]])
    loss = multi_positive_info_nce(logits, positive, torch.tensor([0, 1]))
    first = -torch.tensor([2.0, 0.5]).log_softmax(0)[0]
    second = -logits[1].log_softmax(0)[1]
    torch.testing.assert_close(loss, (first + second) / 2)


def test_without_a_target_all_positives_are_found() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.5], [0.0, 0.0, 9.0]])
    positive = torch.tensor([[True, True, False], [False, False, False]])
    expected = -logits[0].log_softmax(0)[:2].mean()
    torch.testing.assert_close(multi_positive_info_nce(logits, positive), expected)
    assert multi_positive_info_nce(logits, torch.zeros(2, 3, dtype=torch.bool)) == 0


def world(images: int = 60, classes: int = 6) -> tuple[ImageExamples, np.ndarray]:
    draw = np.random.default_rng(0)
    own = np.arange(images) % classes
    centres = draw.normal(size=(classes, 20)).astype(np.float32)
    features = centres[own] + 0.3 * draw.normal(size=(images, 20)).astype(np.float32)
    texts = draw.normal(size=(2 * classes, 8)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    belongs = [np.array([number, number + classes]) for number in own]
    negatives = [np.array([(number + 1) % classes]) for number in own]
    return ImageExamples(features.astype(np.float32), texts, belongs, negatives), own


def trained(folder: Path, seed: int = 0, epochs: float = 20) -> tuple[ProjectionHead, float]:
    examples, own = world()
    config = ImagesConfig(image_negatives=1)
    torch.manual_seed(seed)
    head = ProjectionHead(20, 8, "mlp", 16, 0.1)
    head.standardise_by(torch.from_numpy(examples.features_NF))
    schedule = TaskSchedule(
        epochs=epochs, seed=seed, learning_rate=0.01, warmup_fraction=0.1, examples=60, batch_size=16
    )
    trainable = trainable_parameters(head, config)
    loss_fn = image_objective(head, examples, schedule, config, trainable)
    fit(
        trainable,
        loss_fn,
        schedule,
        TrainConfig(),
        selection=None,
        folder=folder / "checkpoints",
        metrics=folder / "metrics.jsonl",
        identity="one",
        dtype="float32",
    )
    nearest = (project(head, examples.features_NF) @ examples.text_TD.T).argmax(1) % 6
    return head, float((nearest == own).mean())


def test_images_find_their_texts(tmp_path: Path) -> None:
    assert trained(tmp_path)[1] > 0.95


def test_a_step_is_a_function_of_its_number(tmp_path: Path) -> None:
    first, second = trained(tmp_path / "a", epochs=2)[0], trained(tmp_path / "b", epochs=2)[0]
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_negatives_look_alike_or_mean_alike_and_are_none_of_the_images_own() -> None:
    examples, own = world()
    look = examples.features_NF.copy()
    look[own == 2] = look[own == 3] + 0.01  # classes 2 and 3 look the same
    texts = examples.text_TD[:6].copy()
    texts[5] = texts[0] + 0.2 * texts[1]  # text 5 nearly means what text 0 means
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    found = mine_texts(look, texts, [np.array([number]) for number in own], own, 2)
    for number, one in zip(own, found, strict=True):
        assert len(one.texts) == 2 and number not in one.texts
    assert all(3 in one.texts for number, one in zip(own, found, strict=True) if number == 2)
    assert all(5 in one.texts for number, one in zip(own, found, strict=True) if number == 0)


def test_a_text_that_says_the_same_is_no_negative() -> None:
    examples, own = world()
    texts = examples.text_TD[:6].copy()
    texts[1] = texts[0]
    found = mine_texts(examples.features_NF, texts, [np.array([number]) for number in own], own, 3)
    assert all(1 not in one.texts for number, one in zip(own, found, strict=True) if number == 0)


def test_what_is_said_of_two_classes_is_no_negative_of_either() -> None:
    """Images 0 and 1 of two classes; text 2 is another copy of text 0, for the second class."""
    texts = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    examples = ImageExamples(np.zeros((2, 3), np.float32), texts, [np.array([0, 1]), np.array([2])], [np.array([])] * 2)
    for seed in range(8):
        own, target, positive = drawn(examples, np.array([0, 1]), 0, np.random.default_rng(seed))
        assert own[target[1]] == 2 and positive[1].tolist() == [number != 1 for number in own]
        assert positive[0].all()


@pytest.mark.parametrize("negatives", [0, 3])
def test_a_step_s_gradient_reaches_head_and_temperature(negatives: int) -> None:
    examples, _ = world()
    config = ImagesConfig(image_negatives=negatives)
    head = ProjectionHead(20, 8, "linear")
    schedule = TaskSchedule(epochs=1, seed=0, learning_rate=0.01, warmup_fraction=0.1, examples=60, batch_size=16)
    trainable = trainable_parameters(head, config)
    result = image_objective(head, examples, schedule, config, trainable)(0)
    assert result.tokens == 15 and float(result.loss) > 0
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in trainable.values())
