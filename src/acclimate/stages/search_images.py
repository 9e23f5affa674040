"""`search` where a picture is the query, or pictures are what is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.configs import RunConfig
from acclimate.core.filter_language import parse_filter
from acclimate.data.images.pictures import require_pillow
from acclimate.data.images.video import normalise
from acclimate.data.records import BadRowError
from acclimate.data.texts import typed_text
from acclimate.errors import DataError, StorageError, UsageError
from acclimate.files import open_input
from acclimate.models.projection import ProjectedImages, project
from acclimate.retrieval.index.of_run import index_for, index_place
from acclimate.retrieval.index.records import Query
from acclimate.retrieval.top_k import top_k
from acclimate.runs.images import adapted_texts, image_features, open_images, text_encoder, text_vectors
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task

NO_PROJECTION = "Train one: acclimate adapt IMAGES --image-model MODEL --out {run}"


def search_index_by_picture(
    run: Path, picture: Path, top: int, config: RunConfig, *, filter: str | None = None
) -> dict[str, Any]:
    """Search the index of a run by a picture: its vector lies in the space of the index's texts; none is encoded again.

    Args:
        run: the run's folder, with a projection and an index.
        picture: an image file.
        top: documents to return.
        config: the run's model and device; where the index is; where the image model is.
        filter: on metadata, see `core.filter_language`.

    Returns:
        as `search.search_index` in mode dense; "query" is the picture's path.

    Raises:
        DataError: the picture cannot be used.
        StorageError: there is no projection, or no index.
        UsageError: the index holds vectors of another space than the projection was trained into.
    """
    _check(top)
    place, passed = index_place(one_task(run, config)), None if filter is None else parse_filter(filter)
    encoder = open_projection(run, config)
    vector = encoder.encode([read_picture(picture, config)])[0]
    with index_for(place, encoder, run) as index:
        hits = index.search(Query(None, vector, "dense", top, passed))
        found = {"query": str(picture), "mode": "dense", "place": place, "documents": index.count(), "reranker": None}
    shown = [{"id": hit.id, "score": hit.score, "text": hit.text, "metadata": dict(hit.metadata)} for hit in hits]
    return {**found, "hits": shown}


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
    texts = adapted_texts(text_encoder(folder, config, encoder.encoder), encoder)
    if texts.space != encoder.space:
        raise StorageError(
            f"{folder.projection} was trained into another space than that of the run's texts",
            fix="Train it again: " + NO_PROJECTION.format(run=run),
        )
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


def open_projection(run: Path, config: RunConfig) -> ProjectedImages:
    """Load a run's projection and its image tower.

    Raises:
        StorageError: the run has none.
        ModelError: the tower is nowhere to be found, or is another one.
    """
    require_pillow()
    folder = RunFolder(run).projection
    if not folder.is_dir():
        raise StorageError(f"{run} holds no projection of images", fix=NO_PROJECTION.format(run=run))
    return ProjectedImages.open(folder, image_model=config.images.image_model, device=config.device)


def read_picture(path: Path, config: RunConfig) -> bytes:
    """Read an image file as images of a training are read.

    Raises:
        DataError: it is missing, or cannot be used; the reason is said.
    """
    with open_input(path) as stream:
        data = stream.read()
    try:
        return normalise(data, config.images).data
    except BadRowError as error:
        raise DataError(f"{path}: {error}", fix="Give another picture.") from None


def _check(top: int) -> None:
    if top < 1:
        raise UsageError(f"top = {top}", possible="1 or more")
