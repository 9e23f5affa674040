"""A query-vector map written with all that sentence-transformers needs to load the folder."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from acclimate.files import storage_errors
from acclimate.formats import peft, sentence_transformers
from acclimate.formats.facts import write_facts
from acclimate.formats.full_model import save_tokenizer
from acclimate.formats.hub_cache import share_packaged
from acclimate.models.adapter_saving import nothing
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.layers import layers_of
from acclimate.models.query_map import KIND, MAP_FILE, QueryMap
from acclimate.types import ROLES, Role


def save_query_map(folder: Path, query_map: QueryMap, encoder: Encoder) -> None:
    """Write the map into an existing folder: its matrices, our facts, the view of sentence-transformers.

    Both sides of a Router are the base: an adapter that adds nothing, because that is what names a base there. Behind
    the queries' one the map is a Dense layer; the normalisation, which both share, comes last.

    Args:
        folder: exists; an artifact in the making.
        query_map: of the encoder's base.
        encoder: the base.

    Raises:
        ModelError: the map belongs to another base.
        StorageError: it cannot be written.
    """
    source, use = encoder.source, query_map.use
    query_map.check_base(source)
    path = folder / MAP_FILE
    with storage_errors(path):
        save_file({"A": query_map.A_rD.contiguous(), "B": query_map.B_Dr.contiguous()}, path)
    base = {"id": query_map.base_id, "sha256": query_map.base_sha256}
    normalise, metrics = query_map.normalise, query_map.metrics
    write_facts(folder, base, use, normalise=normalise, sides="query", metrics=metrics, kind=KIND)
    save_tokenizer(folder, source)
    sides: dict[Role, str] = {role: f"{role}_0_SentenceTransformer" for role in ROLES}
    sentence_transformers.write_mapped_router(folder, use, sides, query_map.as_linear())
    layer = layers_of(encoder.model)[0]
    for name in sides.values():
        side = folder / name
        side.mkdir()
        sentence_transformers.write_unnormalised(side, source, use)
        save_tokenizer(side, source)
        peft.write(side, nothing(layer.name, layer.d_in, layer.d_out), query_map.base_id, 1, 1.0)
    share_packaged(source)
