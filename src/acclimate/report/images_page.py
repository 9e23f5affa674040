"""`report.html` of a run on images: what was measured, and pictures, inlined as thumbnails."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acclimate.data.images.dataset import ImageBytes, ImageDataset, load_image_dataset
from acclimate.data.images.pictures import thumbnail
from acclimate.files import REPORT_FILE, iter_jsonl, read_json
from acclimate.report import html, plots, tables
from acclimate.report.folder import RunParts
from acclimate.report.tables import Cell, Row, Table
from acclimate.report.words import count, percent, score
from acclimate.runs.run_folder import RunFolder

DIRECTIONS = {
    "text_to_image": "Text → image",
    "image_to_text": "Image → text",
    "image_to_image": "Image → image",
    "image_to_image_by_tower": "Image → image, by the tower's own features",
}
MEASURES = ("precision@10", "recall@5", "ndcg@10", "mrr@10")
TEXTS_STAY = "the texts' model was not changed, so their index stays valid"
TEXTS_TRAINED = "the texts' model was trained with it, so an index of texts that was made before has to be built again"
PARTS = {"unseen": "never trained on", "seen": "trained on, with other images"}


@dataclass(frozen=True, slots=True)
class Thumb:
    """A picture on the page: its data as a URL, what it shows, and whether it is relevant."""

    url: str
    title: str
    relevant: bool


@dataclass(frozen=True, slots=True)
class Strip:
    """A query and its first results, in one or two rows."""

    text: str
    query: Thumb | None
    note: str
    rows: tuple[tuple[str, tuple[Thumb, ...]], ...]
    texts: tuple[tuple[str, bool], ...] = ()


def render(path: Path, run: RunParts) -> str:
    """Render the page of the run at `path`. Equal input gives equal bytes; nothing is loaded from elsewhere.

    Args:
        path: the run's folder, which holds images and their evaluation.
        run: its parts, as `read_run` gives them.
    """
    folder = RunFolder(path)
    report = read_json(folder.image_evaluation / REPORT_FILE)
    trained = read_json(folder.projection / REPORT_FILE)["train"]
    dataset = load_image_dataset(folder.images)
    pictures = ImageBytes(folder.images, dataset.items)
    shown = {name: _strips(dataset, pictures, part) for name, part in report["shown"].items()}
    pictures.close()
    rows = [line.value for line in iter_jsonl(folder.projection_metrics) if line.value is not None]
    curves = [plots.loss_curve(rows)]
    summary = run.summary or {}
    return html.fill(
        "images.html",
        run=run,
        pictures=True,
        claim=_claim(report),
        lead=_lead(dataset, report),
        accuracy=_accuracy(report),
        results=[_result(name, report[name]) for name in PARTS if name in report] + _among_all(report),
        shown={name: strips for name, strips in shown.items() if any(strips.values())},
        parts=PARTS,
        guarded=report.get("texts_trained", False),
        guard=tables.guard(report.get("guard", [])),
        forgot=False,  # what it would advise is for trainings on texts
        guard_bound=summary.get("config", {}).get("evaluate", {}).get("guard_bound"),
        curves=[curve for curve in curves if curve],
        data=tables.values("Data", _flat(dataset.info["counts"])),
        warnings=dataset.info["warnings"],
        training=tables.values("Training", trained),
        timings=tables.timings(summary.get("timings", {})),
        command=summary.get("command"),
        made=summary.get("made", {}),
        versions=tables.values("Versions", summary.get("versions", {})),
    )


def _claim(report: Mapping[str, Any]) -> str:
    unseen = "unseen" in report
    found = report["unseen" if unseen else "seen"]["text_to_image"]["precision@10"]
    what = "groups that it never saw" if unseen else "images that it never saw"
    better = "finds" if report["verdict"] == "better" else "has not been shown to find"
    return f"A text {better} pictures of {what} more often than chance: {percent(found['value'])} of the first ten."


def _lead(dataset: ImageDataset, report: Mapping[str, Any]) -> str:
    counts = dataset.info["counts"]
    found = report.get("unseen", report.get("seen"))["text_to_image"]["precision@10"]
    return (
        f"By chance it would be {percent(found['chance'])}; the {percent(report['confidence'])} interval is "
        f"{percent(found['low'])} to {percent(found['high'])}. A projection into the texts' space was trained on "
        f"{count(counts['train'])} images; {TEXTS_TRAINED if report.get('texts_trained') else TEXTS_STAY}."
    )


def _accuracy(report: Mapping[str, Any]) -> Table | None:
    """Classes told by their texts alone."""
    rows = []
    for name, among in (("unseen", "unseen"), ("seen", "seen")):
        if found := report.get(name, {}).get("class_accuracy"):
            rows.append(_measured(f"{name} classes, among {report[name]['groups']} {among} ones", found))
    if every := report.get("all"):
        for name, found in every["class_accuracy"].items():
            rows.append(_measured(f"{name} classes, among all {every['classes']}", found))
        for kind, found in every.get("calibrated", {}).items():
            rows += [
                _measured(f"{name} classes, {found['offset']:.2f} off the trained ones ({kind})", found[name])
                for name in every["class_accuracy"]
            ]
    if not rows:
        return None
    columns = ("Images of", "Accuracy", "Interval", "By chance", "Images")
    return Table("The class of an image, by the texts of the classes", columns, tuple(rows))


def _result(name: str, part: Mapping[str, Any]) -> Table:
    rows = [
        _measured(f"{title}: {measure}", part[direction][measure])
        for direction, title in DIRECTIONS.items()
        for measure in MEASURES
        if measure in part.get(direction, {})
    ]
    caption = (
        f"{name.capitalize()} groups ({PARTS[name]}): {count(part['images'])} images, {count(part['texts'])} texts"
    )
    return Table(caption, ("Search", "Score", "Interval", "By chance", "Queries"), tuple(rows))


def _among_all(report: Mapping[str, Any]) -> list[Table]:
    """How well texts of unseen groups find their images among those of all groups."""
    found = report.get("all", {}).get("text_to_image")
    if not found:
        return []
    rows = tuple(_measured(f"Text → image: {measure}", found[measure]) for measure in MEASURES if measure in found)
    caption = "Texts of unseen groups, among the test images of all groups"
    return [Table(caption, ("Search", "Score", "Interval", "By chance", "Queries"), rows)]


def _measured(head: str, found: Mapping[str, Any]) -> Row:
    tone: Any = "good" if found["low"] > found["chance"] else ""
    doubt = f"{score(found['low'])} to {score(found['high'])}"
    cells = (
        Cell(score(found["value"]), tone=tone),
        Cell(doubt),
        Cell(score(found["chance"])),
        Cell(count(found["queries"])),
    )
    return Row(head, cells)


def _strips(dataset: ImageDataset, pictures: Sequence[bytes], part: Mapping[str, Any]) -> dict[str, list[Strip]]:
    def thumb(number: int, relevant: bool = False) -> Thumb:
        data = base64.b64encode(thumbnail(pictures[number])).decode("ascii")
        item = dataset.items[number]
        title = f"{dataset.groups[item.group].name}: {item.name}"
        return Thumb(f"data:image/jpeg;base64,{data}", title, relevant)

    def thumbs(found: Sequence[Mapping[str, Any]]) -> tuple[Thumb, ...]:
        return tuple(thumb(it["image"], it["relevant"]) for it in found)

    def changes(name: str) -> list[Strip]:
        return [
            Strip(
                "",
                thumb(it["image"]),
                f"precision@10 {score(it['tower'], 2)} by the tower's features, {score(it['projected'], 2)} here",
                (("By the tower's features", thumbs(it["by_tower"])), ("Here", thumbs(it["by_projection"]))),
            )
            for it in part[name]
        ]

    return {
        "Texts that find most and least": [
            Strip(
                dataset.texts[it["text"]].text,
                None,
                f"precision@10 {score(it['precision'], 2)}",
                (("", thumbs(it["images"])),),
            )
            for it in part["text_to_image"]
        ],
        "Images and the nearest texts": [
            Strip(
                "",
                thumb(it["image"]),
                "",
                (),
                tuple((dataset.texts[t["text"]].text, t["relevant"]) for t in it["texts"]),
            )
            for it in part["image_to_text"]
        ],
        "Image queries most won": changes("won"),
        "Image queries most lost": changes("lost"),
    }


def _flat(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Counts, with the reasons for rejecting and the changes each by itself."""
    flat: dict[str, Any] = {}
    for name, value in counts.items():
        flat |= (
            {f"{name}: {why}": number for why, number in value.items()} if isinstance(value, dict) else {name: value}
        )
    return flat
