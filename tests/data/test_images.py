"""Sources of images: folders per class, tables, parquet with embedded bytes; what is rejected; what is held out."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from acclimate.configs import ImagesConfig
from acclimate.data.images.build import build_images
from acclimate.data.images.classes import by_name, class_texts, read_classes
from acclimate.data.images.dataset import ImageBytes, ImageDataset, load_image_dataset, write_image_dataset
from acclimate.data.images.rows import ImageRow, image_rows
from acclimate.errors import DataError, StorageError, UsageError
from acclimate.types import Rejected
from tests.image_world import encoded, picture, write_class_folders

CONFIG = ImagesConfig(held_out_classes=2)


def built(
    source: Path, out: Path, config: ImagesConfig = CONFIG, **more: int | None
) -> tuple[ImageDataset, list[Rejected]]:
    out.mkdir(parents=True, exist_ok=True)
    settings = {"seed": 0, "limit": None, "threads": 2} | more
    return build_images(source, out, config, **settings)  # type: ignore[arg-type]


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_folder_per_class(tmp_path: Path) -> None:
    dataset, rejected = built(write_class_folders(tmp_path / "in"), tmp_path / "out")
    assert (dataset.kind, len(dataset.items), len(dataset.groups), rejected) == ("classes", 96, 8, [])
    held_out = {number for number, group in enumerate(dataset.groups) if group.held_out}
    assert len(held_out) == 2
    assert {item.split for item in dataset.items if item.group in held_out} == {"test"}
    splits = Counter(item.split for item in dataset.items if item.group not in held_out)
    assert splits == {"train": 54, "test": 12, "dev": 6}
    first = dataset.items[0]
    assert dataset.groups[first.group].name == "w0 w20"
    assert [dataset.texts[text].text for text in first.texts] == ["w0 w20", "a photo of w0 w20", "w0 w40 w41"]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    source = write_class_folders(tmp_path / "in", classes=4, images=4)
    dataset, rejected = built(source, tmp_path / "out", ImagesConfig(held_out_classes=1))
    write_image_dataset(tmp_path / "out", dataset, rejected)
    again = load_image_dataset(tmp_path / "out")
    assert (again.items, again.texts, again.groups) == (dataset.items, dataset.texts, dataset.groups)
    pictures = ImageBytes(tmp_path / "out", again.items)
    assert pictures[0] == (source / "0" / "0.jpg").read_bytes()
    pictures.close()
    (tmp_path / "out" / "images.bin").write_bytes(b"short")
    with pytest.raises(StorageError, match="cut short"):
        ImageBytes(tmp_path / "out", again.items)


def test_other_seeds_hold_out_other_classes(tmp_path: Path) -> None:
    source = write_class_folders(tmp_path / "in", images=2)
    names = []
    for seed in range(3):
        dataset, _ = built(source, tmp_path / str(seed), seed=seed)
        names.append(frozenset(group.name for group in dataset.groups if group.held_out))
    assert len(set(names)) > 1
    again, _ = built(source, tmp_path / "again", seed=0)
    assert frozenset(group.name for group in again.groups if group.held_out) == names[0]


def test_a_limit_takes_images_of_all_classes(tmp_path: Path) -> None:
    dataset, _ = built(write_class_folders(tmp_path / "in"), tmp_path / "out", limit=16)
    assert Counter(item.group for item in dataset.items) == dict.fromkeys(range(8), 2)


def test_a_table_names_images_classes_and_splits(tmp_path: Path) -> None:
    rows = []
    for number in range(24):
        name = f"{number}.jpg"
        (tmp_path / name).write_bytes(encoded(picture(number % 4, number)))
        split = ["train", "train", "val", "test"][number // 4 % 4]
        rows.append({"image": name, "class": number % 4, "split": split})
    jsonl(tmp_path / "images.jsonl", rows)
    (tmp_path / "classes.json").write_text(json.dumps([{"class": f"name {n}", "id": n} for n in range(4)]))
    dataset, rejected = built(tmp_path, tmp_path.with_name("out"), ImagesConfig(held_out_classes=1))
    assert rejected == []
    seen = [item for item in dataset.items if not dataset.groups[item.group].held_out]
    assert Counter(item.split for item in seen) == {"train": 12, "dev": 3, "test": 3}
    assert {group.name for group in dataset.groups} == {f"name {n}" for n in range(4)}


def test_rows_that_cannot_be_used_are_rejected_one_by_one(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(picture(number % 4, number)))
    (tmp_path / "broken.jpg").write_bytes(encoded(picture(0, 99))[:300])
    data = base64.b64encode(encoded(picture(1, 77))).decode()
    rows: list[dict[str, object]] = [{"image": f"{n}.jpg", "class": f"class {n % 4}"} for n in range(8)]
    rows += [
        {"image": "https://example.org/leaf.jpg", "class": "class 0"},
        {"image": "absent.jpg", "class": "class 0"},
        {"image": "broken.jpg", "class": "class 0"},
        {"class": "class 0"},
        {"image": "0.jpg"},
        {"image": "0.jpg", "class": "class 0"},
        {"image": "data:image/jpeg;base64,???", "class": "class 1"},
        {"image": f"data:image/jpeg;base64,{data}", "class": "class 1"},
        {"image": "1.jpg", "class": "class 1", "split": "holdout"},
    ]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    dataset, rejected = built(path, tmp_path / "out", ImagesConfig(held_out_classes=1))
    assert len(dataset.items) == 9
    by_row = {row.row: row.reason for row in rejected}
    expected = {
        9: "a URL",
        10: "cannot be read",
        11: "broken image",
        12: "no image",
        13: "neither a text nor a class",
        14: "the same image as another one",
        15: "not base64",
        17: "unknown split",
    }
    assert set(by_row) == set(expected)
    assert all(reason in by_row[row] for row, reason in expected.items())


def test_parquet_with_embedded_bytes_and_captions(tmp_path: Path) -> None:
    images = [{"bytes": encoded(picture(n, n)), "path": f"{n}.jpg"} for n in range(12)]
    captions = [[f"a thing {n}", f"seen from afar {n}"] for n in range(12)]
    table = pyarrow.table({"image": images, "captions": captions})
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    dataset, rejected = built(tmp_path / "train.parquet", tmp_path / "out")
    assert (dataset.kind, len(dataset.items), len(dataset.texts), rejected) == ("captions", 12, 24, [])
    splits = {item.split for item in dataset.items}
    assert splits == {"train", "dev", "test"}
    assert all(dataset.groups[item.group].held_out == (item.split != "train") for item in dataset.items)


def test_an_image_with_a_row_for_each_caption_is_one_image(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(picture(number, number)))
        rows += [{"image_path": f"{number}.jpg", "caption": f"text {number} {turn}"} for turn in range(5)]
    dataset, rejected = built(jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert (len(dataset.items), len(dataset.texts), rejected) == (6, 30, [])
    assert (tmp_path / "out" / "images.bin").stat().st_size == sum(item.size for item in dataset.items)


def test_images_that_share_a_caption_are_split_together(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    for number in range(60):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(picture(number, number)))
        rows.append({"image": f"{number}.jpg", "query": f"pair {number // 2}", "response": f"alone {number}"})
    dataset, _ = built(jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "out", ImagesConfig(image_test_fraction=0.3))
    by_pair = {frozenset(item.split for item in dataset.items[n : n + 2]) for n in range(0, 60, 2)}
    assert all(len(splits) == 1 for splits in by_pair) and len(by_pair) == 3


def test_a_test_image_s_copy_leaves_train(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(picture(number % 2, number)))
        rows.append({"image": f"{number}.jpg", "class": f"class {number % 2}", "split": "train"})
    rows.append({"image": "3.jpg", "class": "class 1", "split": "test"})
    dataset, rejected = built(jsonl(tmp_path / "r.jsonl", rows), tmp_path / "out", ImagesConfig(held_out_classes=0))
    assert [row.row for row in rejected] == [4]
    assert [item.name for item in dataset.items if item.split == "test"] == ["3.jpg"]


def test_rows_of_a_table_hold_few_images_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embedded images are handed on row by row; none is kept by what has been built."""
    images = [{"bytes": encoded(picture(n, n)), "path": None} for n in range(200)]
    table = pyarrow.table({"image": images, "label": [n % 4 for n in range(200)]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=50)
    asked: list[int] = []
    original = pyarrow.parquet.ParquetFile.iter_batches

    def watched(self: object, batch_size: int, **settings: object) -> object:
        asked.append(batch_size)
        return original(self, batch_size=batch_size, **settings)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", watched)
    rows = [row for row in image_rows(tmp_path / "rows.parquet") if isinstance(row, ImageRow)]
    assert len(rows) == 200 and set(asked) == {64}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[]", "no list of classes"),
        ('[{"id": 3}]', "class 1 has no name"),
        ('[{"class": "a"}, {"class": "a"}]', "two classes are called 'a'"),
        ("{", "cannot be read"),
    ],
)
def test_a_bad_classes_file_is_named(tmp_path: Path, value: str, message: str) -> None:
    (tmp_path / "classes.json").write_text(value)
    with pytest.raises(DataError, match=message):
        read_classes(tmp_path / "classes.json")


def test_templates_are_filled_by_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text('{"Granny Smith": {"kinds": ["apple", "fruit"]}, "Leek": "a vegetable"}')
    classes = read_classes(tmp_path / "classes.json")
    templates = ("{class}", "{class}, a kind of {kinds}", "{description}")
    assert class_texts(classes["Granny Smith"], templates) == [
        "Granny Smith",
        "Granny Smith, a kind of apple",
        "Granny Smith, a kind of fruit",
    ]
    assert class_texts(classes["Leek"], templates) == ["Leek", "a vegetable"]
    for wrong in ("{", "no field", "{}", "{class.name}", "{class:>9}"):
        with pytest.raises(UsageError, match="the template"):
            class_texts(by_name("Leek"), (wrong,))


def test_a_source_without_images_says_what_would_be_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, message in ((tmp_path / "empty", "no images"), (tmp_path / "absent", "no such file or folder")):
        with pytest.raises(DataError, match=message):
            built(source, tmp_path / "out")
    source = write_class_folders(tmp_path / "in", classes=2, images=2)
    with pytest.raises(UsageError, match="held_out_classes = 1, and there are 2 classes"):
        built(source, tmp_path / "out", ImagesConfig(held_out_classes=1))
