"""`search` where a picture is the query, or pictures are what is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.configs import RunConfig
from acclimate.core.filter_language import parse_filter
from acclimate.core.filters import Filter
from acclimate.data.texts import typed_text
from acclimate.errors import StorageError, UsageError
from acclimate.models.image_text import ImageTexts
from acclimate.models.projection import ProjectedImages, project
from acclimate.models.text_encoder import TextEncoder
from acclimate.retrieval.index.of_run import index_for, index_place
from acclimate.retrieval.index.pictures import PICTURES, TEXTS, both
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.records import Hit, Query, Vectors
from acclimate.retrieval.top_k import top_k
from acclimate.runs.images import (
    adapted_texts,
    image_features,
    open_images,
    open_projection,
    read_picture,
    text_encoder,
    text_vectors,
    train_projection,
)
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task


def search_index_by_picture(
    run: Path, picture: Path, top: int, config: RunConfig, *, filter: str | None = None
) -> dict[str, Any]:
    """Search the index of a run by a picture: its vector lies in the space of the index's texts; none is encoded again.

    Texts and pictures are ranked apart: vectors of pictures lie near each other, and would crowd out the texts.

    Args:
        run: the run's folder, with a projection and an index.
        picture: an image file.
        top: texts to return, and pictures.
        config: the run's model and device; where the index is; where the image model is.
        filter: on metadata, see `core.filter_language`.

    Returns:
        as `search.search_index` in mode dense; "query" is the picture's path. Where the index holds pictures, also
        "pictures": the nearest of these, in the form of "hits".

    Raises:
        DataError: the picture cannot be used.
        StorageError: there is no projection, or no index.
        UsageError: the index holds vectors of another space than the projection was trained into.
    """
    _check(top)
    place, passed = index_place(one_task(run, config)), None if filter is None else parse_filter(filter)
    encoder = open_projection(run, config)
    vector = encoder.encode([read_picture(picture, config)])[0]
    with index_for(place, encoder, run, fix=_other_space(run)) as index:
        found = {"query": str(picture), "mode": "dense", **_facts(index, place)}
        if not index.has_pictures():
            return {**found, "hits": _nearest(index, vector, top, passed)}
        hits = _nearest(index, vector, top, both(TEXTS, passed))
        return {**found, "hits": hits, "pictures": _nearest(index, vector, top, both(PICTURES, passed))}


def search_index_pictures(
    run: Path, query: str, top: int, config: RunConfig, *, filter: str | None = None
) -> dict[str, Any] | None:
    """Search the pictures of a run's index by a text.

    Args:
        run: as for `search_index_by_picture`.
        query: what to search for.
        top: pictures to return.
        config: as for `search_index_by_picture`.
        filter: on metadata, see `core.filter_language`.

    Returns:
        {"query", "mode", "place", "documents", "pictures": [{"id", "score", "text", "metadata"}]}; None where the
        index holds no pictures.

    Raises:
        StorageError, UsageError: as `search_index_by_picture`.
    """
    _check(top)
    place, passed = index_place(one_task(run, config)), None if filter is None else parse_filter(filter)
    images = open_projection(run, config)
    with index_for(place, images, run, fix=_other_space(run)) as index:
        if not index.has_pictures():
            return None
        vector = _texts_beside(run, images, config).encode([typed_text(query)], "query")[0]
        pictures = _nearest(index, vector, top, both(PICTURES, passed))
        return {"query": query, "mode": "dense", **_facts(index, place), "pictures": pictures}


def _nearest(index: Index, vector: Vectors, top: int, filter: Filter | None) -> list[dict[str, Any]]:
    return [_shown(hit) for hit in index.search(Query(None, vector, "dense", top, filter))]


def _shown(hit: Hit) -> dict[str, Any]:
    return {"id": hit.id, "score": hit.score, "text": hit.text, "metadata": dict(hit.metadata)}


def _facts(index: Index, place: str) -> dict[str, Any]:
    return {"place": place, "documents": index.count(), "reranker": None}


def _other_space(run: Path) -> str:
    """What to do where the projection was trained into another space than that of the index."""
    return f"Train the projection in the space of its texts: {train_projection(run)}"


def _texts_beside(run: Path, images: ProjectedImages, config: RunConfig) -> TextEncoder | ImageTexts:
    """Load what encodes texts in the space of a run's projection.

    Raises:
        StorageError: the run's texts have another one now.
    """
    folder = RunFolder(run)
    texts = adapted_texts(text_encoder(folder, config, images.encoder), images)
    if texts.space != images.space:
        raise StorageError(
            f"{folder.projection} was trained into another space than that of the run's texts",
            fix=f"Train it again: {train_projection(run)}",
        )
    return texts


def search_images(run: Path, query: str | None, picture: Path | None, top: int, config: RunConfig) -> dict[str, Any]:
    """Search a run's own texts and images by a text or a picture, without an index.

    Args:
        run: the run's folder, with images and a projection.
        query: a text; or
        picture: an image file.
        top: results of each kind.
        config: as for `search_index_by_picture`.

    Returns:
        {"query", "images": [{"id", "text", "score"}], "texts": [the same]}, best first; of an image, "id" is its name
        in the source, "text" its class or its first caption.

    Raises:
        DataError, StorageError: as `search_index_by_picture`.
    """
    _check(top)
    folder = RunFolder(run)
    dataset, pictures = open_images(folder.images)
    encoder = open_projection(run, config)
    texts = _texts_beside(run, encoder, config)
    if picture is not None:
        vector_1D = encoder.encode([read_picture(picture, config)])
    else:
        vector_1D = texts.encode([typed_text(query or "")], "query")
    features_NF = image_features(folder, dataset, pictures, encoder.encoder)
    pictures.close()
    image_ND = project(encoder.projection.head, features_NF)
    document_TD = text_vectors(texts, [text.text for text in dataset.texts]).document_TD

    def first(vectors: NDArray[np.float32], names: list[tuple[str, str]]) -> list[dict[str, Any]]:
        scores, rows = top_k(vector_1D, vectors, top)
        return [
            {"id": names[row][0], "text": names[row][1], "score": float(score)}
            for score, row in zip(scores[0], rows[0], strict=True)
        ]

    return {
        "query": str(picture) if picture is not None else query,
        "images": first(image_ND, [(item.name, dataset.groups[item.group].name) for item in dataset.items]),
        "texts": first(document_TD, [(dataset.groups[text.group].name, text.text) for text in dataset.texts]),
    }


def _check(top: int) -> None:
    if top < 1:
        raise UsageError(f"top = {top}", possible="1 or more")
