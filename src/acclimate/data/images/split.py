"""Splits of images: whole groups held out, and images of the others, so that nothing of the test is trained on."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from acclimate.configs import ImagesConfig
from acclimate.data.images.dataset import ImageDataset
from acclimate.data.images.rows import ImageRow
from acclimate.errors import UsageError
from acclimate.types import Rejected, Split

LARGEST_SHARE = 0.05
"""A group of captions and images with a larger share of the images stays in train, as in `data.split`."""
STRICTEST: dict[Split, int] = {"test": 0, "dev": 1, "train": 2}


def split_images(dataset: ImageDataset, given: Sequence[Split | None], config: ImagesConfig, seed: int) -> ImageDataset:
    """Decide which groups are held out whole, and which images of the others are for dev and test.

    Of classes, some are held out whole (unseen), and the images of the others are split as the source says, or at
    random. Of captions, groups are split whole: one with an image that the source gives to test is a test group.

    Args:
        dataset: grouped, without splits.
        given: of each image, the source's own split; all None where it has none.
        config: fractions, and how many classes are held out.
        seed: of what is drawn.

    Raises:
        UsageError: hardly a class would be left.
    """
    draw = random.Random(f"images {seed}")
    by_group: dict[int, list[int]] = defaultdict(list)
    for number, item in enumerate(dataset.items):
        by_group[item.group].append(number)
    by_classes = dataset.kind == "classes"
    split_of = (_classes if by_classes else _captions)(by_group, given, config, draw)
    items = [replace(item, split=split_of.get(number, "train")) for number, item in enumerate(dataset.items)]
    seen = {item.group for item in items if item.split == "train"}
    groups = [replace(one, held_out=number not in seen) for number, one in enumerate(dataset.groups)]
    return replace(dataset, items=items, groups=groups)


def _classes(
    by_group: Mapping[int, list[int]], given: Sequence[Split | None], config: ImagesConfig, draw: random.Random
) -> dict[int, Split]:
    groups = sorted(by_group)
    count = len(groups) // 4 if config.held_out_classes is None else config.held_out_classes
    if len(groups) - count < 2:
        raise UsageError(
            f"held_out_classes = {count}, and there are {len(groups)} classes",
            possible=f"0 to {max(0, len(groups) - 2)}",
        )
    held_out, any_given = set(draw.sample(groups, count)), any(given)
    found: dict[int, Split] = {}
    for group in groups:
        numbers = by_group[group]
        if group in held_out:
            found |= dict.fromkeys(numbers, "test")
        elif any_given:
            found |= {number: given[number] or "train" for number in numbers}
        else:
            order = draw.sample(numbers, len(numbers))
            test = min(round(config.image_test_fraction * len(order)), len(order) // 4)
            dev = min(round(config.image_dev_fraction * len(order)), len(order) // 4)
            found |= {**dict.fromkeys(order[:test], "test"), **dict.fromkeys(order[test : test + dev], "dev")}
    return found


def _captions(
    by_group: Mapping[int, list[int]], given: Sequence[Split | None], config: ImagesConfig, draw: random.Random
) -> dict[int, Split]:
    found: dict[int, Split] = {}
    if any(given):
        for numbers in by_group.values():
            strictest = min((given[number] or "train" for number in numbers), key=STRICTEST.__getitem__)
            found |= dict.fromkeys(numbers, strictest)
        return found
    groups, images = sorted(by_group), sum(map(len, by_group.values()))
    small = [group for group in groups if len(by_group[group]) <= max(1, LARGEST_SHARE * images)]
    test = min(len(small) // 3, round(config.image_test_fraction * len(groups)))
    dev = min(len(small) // 3, round(config.image_dev_fraction * len(groups)))
    order = draw.sample(small, test + dev)
    for place, group in enumerate(order):
        found |= dict.fromkeys(by_group[group], "test" if place < test else "dev")
    return found


def drop_copies(dataset: ImageDataset, rows: Sequence[ImageRow]) -> list[Rejected]:
    """Keep one of the images that are the same: that of test before that of dev before that of train.

    Returns:
        the others, with reasons; they are not in the dataset any more.
    """
    first: dict[str, int] = {}
    for number in sorted(range(len(dataset.items)), key=lambda it: (STRICTEST[dataset.items[it].split], it)):
        first.setdefault(dataset.items[number].sha256, number)
    kept, rejected = set(first.values()), []
    for number, row in enumerate(rows):
        if number not in kept:
            other = dataset.items[first[dataset.items[number].sha256]]
            reason = f"the same image as another one ({other.name[:80]}, in {other.split})"
            rejected.append(Rejected(row.source, row.row, reason, row.name[:200]))
    dataset.items = [item for number, item in enumerate(dataset.items) if number in kept]
    return rejected
