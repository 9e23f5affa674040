"""Searches by and for pictures as Python functions: `from acclimate import search_by_picture, search_pictures`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acclimate.configs import check_settings
from acclimate.errors import UsageError
from acclimate.flows.settings import Config, measuring
from acclimate.report.result import Result


def search_by_picture(
    run: str | Path,
    picture: str | Path,
    *,
    top: int = 5,
    filter: str | None = None,
    config: Config = None,
    **settings: Any,
) -> Result:
    """Find the texts nearest to a picture: through the run's index, or, without one, its own texts and images.

    Args:
        run: the run's folder, with a projection of images (`adapt` with `image_model`).
        picture: an image file.
        top: how many documents.
        filter: on metadata of the index.
        config: see `Config`.
        settings: such as `image_model="towers/lite0"`, where the image model has moved.

    Returns:
        Through an index {"query", "mode", "hits": [{"id", "score", "text", "metadata"}], "pictures" (the same, where
        there are pictures in it) and more}; else
        {"query", "images": [{"id", "text", "score"}], "texts": [the same]}; best first.
    """
    check_settings("search by a picture", settings)
    effective = measuring("search", settings, config, Path(run))
    from acclimate.retrieval.index.of_run import has_index
    from acclimate.runs.tasks import one_task
    from acclimate.stages import search_images as stage

    if filter is not None or has_index(one_task(Path(run), effective)):
        return Result(stage.search_index_by_picture(Path(run), Path(picture), top, effective, filter=filter))
    return Result(stage.search_images(Path(run), None, Path(picture), top, effective))


def search_pictures(
    run: str | Path, query: str, *, top: int = 5, filter: str | None = None, config: Config = None, **settings: Any
) -> Result:
    """Find pictures for a text: those of the run's index, or, where it has none, its own, with its texts about images.

    Args:
        run: the run's folder, with a projection of images.
        query: what to search for.
        top: how many.
        filter: on metadata of the index's pictures.
        config: see `Config`.
        settings: as of `search_by_picture`.

    Returns:
        Through an index {"query", "pictures": [{"id", "score", "text", "metadata"}] and more}; else
        {"query", "images": [{"id", "text", "score"}], "texts": [the same]}; best first.
    """
    check_settings("search by a picture", settings)
    effective = measuring("search", settings, config, Path(run))
    from acclimate.retrieval.index.of_run import has_index
    from acclimate.runs.tasks import one_task
    from acclimate.stages import search_images as stage

    if has_index(one_task(Path(run), effective)):
        found = stage.search_index_pictures(Path(run), query, top, effective, filter=filter)
        if found is not None:
            return Result(found)
    if filter is not None:
        raise UsageError(
            "a filter, and no index that holds pictures", fix=f"Make them its documents: acclimate index {run} --images"
        )
    return Result(stage.search_images(Path(run), query, None, top, effective))
