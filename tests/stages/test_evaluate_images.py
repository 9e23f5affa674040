"""Which text is true of which image."""

from __future__ import annotations

import numpy as np

from acclimate.data.images.dataset import ImageDataset, ImageGroup, ImageItem, ImageText
from acclimate.stages.evaluate_images import _belongs


def test_what_is_said_of_two_classes_is_true_of_both() -> None:
    texts = [ImageText("a round fruit", 0), ImageText("plum", 0), ImageText("a round fruit", 1)]
    items = [
        ImageItem(str(group), group, own, "test", 0, 1, 8, 8, str(group)) for group, own in ((0, (0, 1)), (1, (2,)))
    ]
    dataset = ImageDataset("classes", items, texts, [ImageGroup("plum", False), ImageGroup("apple", False)])
    found = _belongs(dataset, np.array([0, 1]), np.array([0, 1, 2]))
    assert found.tolist() == [[True, True, True], [True, False, True]]
