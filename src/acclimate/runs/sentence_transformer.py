"""A `SentenceTransformer` from an adapter whose base has moved, or is a folder that no id leads to.

Importing this file imports sentence-transformers (seconds): nothing else in the package does.
"""

from __future__ import annotations

from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Module, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from acclimate.formats import sentence_transformers
from acclimate.formats.sources import ModelSource
from acclimate.models.adapter import Adapter, load_adapter
from acclimate.runs.resolve import adapter_folder, find_base, full_folder


def load_sentence_transformer(
    name: str | Path, *, base: str | None = None, device: str | None = None
) -> SentenceTransformer:
    """A `SentenceTransformer` from a run, an adapter folder, or any model, giving the vectors that `Encoder` gives.

    `SentenceTransformer(folder)` does the same for an adapter whose base is found by its id; here the base can be
    named, and its sha256 is checked.

    Args:
        name: `RUN`, an adapter folder (ours or PEFT's), a merged or fully trained folder, a hub id.
        base: the adapter's base, where its id does not lead to it.
        device: sentence-transformers' device; its own choice if None.

    Raises:
        ModelError: the base cannot be found, or is another one.
    """
    folder = adapter_folder(name)
    if folder is None:
        return SentenceTransformer(str(full_folder(name) or name), device=device)
    adapter = load_adapter(folder, base)
    source = find_base(folder, adapter.base_id, adapter.base_sha256, base, adapter.use.pooling)
    first: Module = _transformer(source, adapter)
    first.model.load_adapter(str(folder))
    if adapter.sides == "query":
        first = Router.for_query_document([first], [_transformer(source, adapter)])
    return SentenceTransformer(
        modules=[first, *_head(adapter, source)],
        prompts=sentence_transformers.prompt_names(adapter.use.prompts),
        device=device,
    )


def _transformer(source: ModelSource, adapter: Adapter) -> Transformer:
    """The base alone."""
    return Transformer(
        str(source.files.transformer), max_seq_length=adapter.use.max_tokens, do_lower_case=source.use.lowercase
    )


def _head(adapter: Adapter, source: ModelSource) -> list[Module]:
    """Pooling, truncation, normalisation."""
    modules: list[Module] = [Pooling(source.files.hidden, sentence_transformers.POOLING_NAMES[adapter.use.pooling])]
    modules += [Dense.load(str(head)) for head in source.files.heads]
    if adapter.use.dim < source.files.dim:
        picks = sentence_transformers.leading_dimensions(source.files.dim, adapter.use.dim)
        modules.append(
            Dense(source.files.dim, adapter.use.dim, bias=False, activation_function=None, init_weight=picks)
        )
    return [*modules, Normalize()]
