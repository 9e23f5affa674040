"""ServedPictures: pictures -> vectors in the space of a run's texts, by the run's projection.

One thread computes them, beside the one that runs the texts' models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from acclimate.configs import ImagesConfig, RunConfig, load_config
from acclimate.data.images.pictures import normalise_picture
from acclimate.data.records import BadRowError
from acclimate.errors import AcclimateError
from acclimate.models.projection import ProjectedImages, is_projection
from acclimate.progress import say
from acclimate.retrieval.index.pictures import made_by
from acclimate.runs.run_folder import RunFolder
from acclimate.serve.errors import ServiceError
from acclimate.text_use import SpaceId

T = TypeVar("T")

WAITING = 64
"""Pictures that may wait; beyond that they are refused."""
RETRY_S = 1.0
MOST = 64
"""Pictures of one request at most."""


class ServedPictures:
    """The projection of a run while it is served.

    Attributes:
        model: whose texts lie in the same space, by its name in the registry.
        space: that space.
        projection: what the metadata of pictures says of what has made their vectors.

    Args:
        images: tower and projection.
        model: see above.
        settings: how pictures are read.
    """

    def __init__(self, images: ProjectedImages, model: str, settings: ImagesConfig) -> None:
        self.model, self.space = model, images.space
        self.projection = made_by(images.projection.digest)
        self._images, self._settings = images, settings
        self._thread = ThreadPoolExecutor(1, "pictures")
        self._waiting = 0

    async def vectors(self, pictures: Sequence[bytes], deadline_s: float) -> NDArray[np.float32]:
        """Unit vectors [N, D] of image files.

        Args:
            pictures: bytes of each.
            deadline_s: seconds from now.

        Raises:
            ServiceError: 413 too many; 422 a picture that cannot be used, and why; 429 too many wait; 504 not in time.
        """
        self._check_count(len(pictures), "input")
        return await self._in_turn(lambda: self._images.encode(self._plain(pictures, "input")), pictures, deadline_s)

    async def plain(self, pictures: Sequence[bytes], deadline_s: float) -> list[bytes]:
        """What an index keeps of image files: upright, scaled down, without metadata.

        Args:
            pictures: as of `vectors`; so are the errors.
            deadline_s: seconds from now.
        """
        self._check_count(len(pictures), "pictures")
        return await self._in_turn(lambda: self._plain(pictures, "pictures"), pictures, deadline_s)

    async def vectors_of_plain(self, pictures: Sequence[bytes], deadline_s: float) -> NDArray[np.float32]:
        """Unit vectors [N, D] of what `plain` gives; the errors are those of `vectors`."""
        return await self._in_turn(lambda: self._images.encode(pictures), pictures, deadline_s)

    def close(self) -> None:
        """End the thread; what waits is dropped."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _in_turn(self, call: Callable[[], T], pictures: Sequence[bytes], deadline_s: float) -> T:
        if self._waiting + len(pictures) > WAITING:
            raise ServiceError("too many pictures are waiting", status=429, retry_after_s=RETRY_S)
        self._waiting += len(pictures)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except TimeoutError:
            raise ServiceError(f"not done within {deadline_s:g} s", status=504, fix="Send fewer pictures.") from None
        finally:
            self._waiting -= len(pictures)

    def _check_count(self, count: int, field: str) -> None:
        if count > MOST:
            raise ServiceError(f"{count} pictures", status=413, field=field, possible=f"up to {MOST}")

    def _plain(self, pictures: Sequence[bytes], field: str) -> list[bytes]:
        plain = []
        for place, data in enumerate(pictures):
            try:
                side, pixels = self._settings.image_side, self._settings.max_megapixels * 1_000_000
                plain.append(normalise_picture(data, side=side, max_pixels=pixels).data)
            except BadRowError as error:
                raise ServiceError(f"item {place}: {error}", status=422, field=field) from None
        return plain


def open_pictures(folder: Path, model: str, device: str) -> ServedPictures | None:
    """Load a run's projection; None where it has none, or where its tower is not to be had, which is said.

    Args:
        folder: of the run.
        model: the name of what encodes its texts.
        device: see `RunConfig.device`.
    """
    run = RunFolder(folder)
    if not is_projection(run.projection):
        return None
    config = load_config(run.config) if run.config.is_file() else RunConfig()
    try:
        images = ProjectedImages.open(run.projection, image_model=config.images.image_model, device=device)
    except AcclimateError as error:
        say(f"warning: {folder} is served without its pictures: {error.found}")
        return None
    return ServedPictures(images, model, config.images)


def check_same_space(pictures: ServedPictures, space: SpaceId) -> None:
    """Refuse vectors of another space than that of the model's texts, whose adapter may have changed since.

    Raises:
        ServiceError: 409.
    """
    if pictures.space.differences(space):
        raise ServiceError(
            f"the pictures' projection was trained into another space than that of {pictures.model}",
            status=409,
            field="model",
            fix="Train it again: acclimate adapt IMAGES --image-model MODEL --out RUN",
        )
