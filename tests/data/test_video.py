"""Videos: some frames, drawn evenly, as one picture; what is broken is said."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acclimate.configs import ImagesConfig
from acclimate.data.images.build import build_images
from acclimate.data.images.pictures import decode, decode_frames, thumbnail
from acclimate.data.images.video import is_video, normalise, normalise_video
from acclimate.data.records import BadRowError
from acclimate.models.image_encoder import ImageEncoder
from tests.image_world import encoded, picture, tiny_graph, video

LIMITS = {"side": 48, "max_pixels": 10**6}


@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi"])
def test_frames_are_drawn_evenly(kind: str) -> None:
    data = video(list(range(0, 240, 6)), kind)  # 40 frames
    assert is_video(data)
    found = normalise_video(data, **LIMITS, frames=4)
    assert (found.width, found.height) == (72, 48) and found.changes == ("frames of a video",)
    levels = [float(np.asarray(image).mean()) for image in decode_frames(found.data)]
    np.testing.assert_allclose(levels, [6 * 5, 6 * 15, 6 * 25, 6 * 35], atol=10)  # the middles of four quarters
    assert decode(found.data).size == (72, 48)
    assert Image.open(io.BytesIO(thumbnail(found.data))).format == "JPEG"


def test_a_short_video_has_fewer_frames() -> None:
    assert len(decode_frames(normalise_video(video([10, 200]), **LIMITS, frames=8).data)) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (video([1, 2])[:200], "broken video"),
        (video([1], size=(2000, 1000)), "too many pixels"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(100), "broken video"),
    ],
)
def test_what_cannot_be_used_is_said(data: bytes, message: str) -> None:
    with pytest.raises(BadRowError, match=message):
        normalise_video(data, **LIMITS, frames=4)


def test_pictures_are_no_videos() -> None:
    assert not is_video(encoded(picture(0, 0))) and not is_video(encoded(picture(0, 0), "AVIF"))
    assert normalise(encoded(picture(0, 0)), ImagesConfig()).changes == ()


def test_features_of_a_video_are_the_mean_of_its_frames(tmp_path: Path) -> None:
    encoder = ImageEncoder.load(str(tiny_graph(tmp_path / "tower")), device="cpu")
    plain = normalise(encoded(picture(1, 1)), ImagesConfig()).data
    moving = normalise(video([0, 100, 200]), ImagesConfig(frames=3)).data
    frames = decode_frames(moving)
    pixels = np.stack([encoder.tower.pixels(image) for image in frames])
    found = encoder.features([plain, moving, plain])
    np.testing.assert_allclose(found[1], encoder.tower.forward(pixels).mean(0), atol=1e-5)
    np.testing.assert_allclose(found[[0, 2]], encoder.features([plain, plain]), atol=1e-6)


def test_a_data_set_of_both(tmp_path: Path) -> None:
    """Three classes of a picture and a video each; the video of one is broken."""
    rows = []
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(picture(number, 0)))
        (tmp_path / f"{number}.mp4").write_bytes(video([80 * number + 10]) if number else b"\x00\x00\x00\x18ftypmp42")
        rows += [{"image": f"{number}.jpg", "class": f"w{number}"}, {"video": f"{number}.mp4", "class": f"w{number}"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "out").mkdir()
    settings = ImagesConfig(held_out_classes=0, frames=2)
    found, rejected = build_images(tmp_path / "rows.jsonl", tmp_path / "out", settings, seed=0, limit=None, threads=1)
    assert len(found.items) == 5 and found.info["counts"]["changed"] == {"frames of a video": 2}
    assert [row.reason.split(" (")[0] for row in rejected] == ["broken video"]
