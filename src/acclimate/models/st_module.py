"""An adapter as a sentence-transformers module, for the cases that its own classes cannot express.

`AdapterTransformer` re-resolves the base by its canonical id (the packaged default included), checks the sha256, and
attaches the adapter; with `sides = "query"` it serves both routes of a `Router` from one copy of the base. From 6.0
on sentence-transformers imports classes of other packages only with `trust_remote_code=True`;
`load_sentence_transformer` needs no such thing, because here it is the caller who imports our code.

Importing this file imports sentence-transformers (seconds): nothing else in the package does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Module, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from acclimate.core import lora
from acclimate.models import peft_format, st_folder
from acclimate.models.adapter_files import Adapter, adapter_folder, full_folder, load_adapter, write_adapter
from acclimate.models.sources import ModelSource, resolve_model


class AdapterTransformer(Transformer):  # type: ignore[misc]
    """A base transformer with an adapter beside its weights.

    Args:
        adapter: the adapter.
        source: its base, resolved and checked.
        options: passed on to sentence-transformers' `Transformer`.
    """

    forward_kwargs: ClassVar[set[str]] = {*Transformer.forward_kwargs, "task"}

    def __init__(self, adapter: Adapter, source: ModelSource, **options: Any) -> None:
        options.setdefault("max_seq_length", adapter.max_tokens)
        options.setdefault("do_lower_case", source.lowercase)
        super().__init__(str(source.transformer), **options)
        self.adapter = adapter
        lora.attach_weights(self.model, adapter.modules)

    def forward(self, features: dict[str, Any], task: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """As `Transformer.forward`; an adapter of the query side is switched off for every other task."""
        if self.adapter.sides == "query" and task != "query":
            with lora.adapters_off(self.model):
                outputs: dict[str, Any] = super().forward(features, **kwargs)
        else:
            outputs = super().forward(features, **kwargs)
        return outputs

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - sentence-transformers' signature
        """The adapter and the tokenizer; never the base."""
        write_adapter(Path(output_path), self.adapter)
        self.processor.save_pretrained(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **options: Any) -> AdapterTransformer:
        """Called by sentence-transformers; the adapter lies in the model's folder, or in the module's own.

        Args:
            model_name_or_path: the model's folder or hub id.
            subfolder: the module's own folder.
            options: sentence-transformers' loading options; those of the hub are used to find the adapter, the base's
                `model_kwargs`, `processor_kwargs` and `config_kwargs` are passed on.
        """
        hub = {name: options.get(name) for name in ("token", "cache_folder", "revision")}
        folder = Path(
            cls.load_dir_path(model_name_or_path, "", local_files_only=bool(options.get("local_files_only")), **hub)
        )
        own = folder / subfolder
        adapter, source = _resolve(own if (own / peft_format.CONFIG_FILE).is_file() else folder)
        passed = {
            name: options[name] for name in ("model_kwargs", "processor_kwargs", "config_kwargs") if options.get(name)
        }
        return cls(adapter, source, **passed)


def load_sentence_transformer(
    name: str | Path, *, base: str | None = None, device: str | None = None
) -> SentenceTransformer:
    """A `SentenceTransformer` from a run, an adapter folder, or any model, giving the vectors that `Encoder` gives.

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
    adapter, source = _resolve(folder, base)
    transformer = AdapterTransformer(adapter, source)
    first: Module = transformer
    if adapter.sides == "query":
        first = Router.for_query_document([transformer], [transformer])
    return SentenceTransformer(
        modules=[first, *_head(adapter, source)], prompts=st_folder.prompt_names(adapter.prompts), device=device
    )


def _head(adapter: Adapter, source: ModelSource) -> list[Module]:
    """Pooling, truncation, normalisation."""
    modules: list[Module] = [Pooling(source.hidden, st_folder.POOLING_NAMES[adapter.pooling])]
    modules += [Dense.load(str(head)) for head in source.heads]
    if adapter.dim < source.dim:
        picks = st_folder.leading_dimensions(source.dim, adapter.dim)
        modules.append(Dense(source.dim, adapter.dim, bias=False, activation_function=None, init_weight=picks))
    return [*modules, Normalize()]


def _resolve(folder: Path, base: str | None = None) -> tuple[Adapter, ModelSource]:
    adapter = load_adapter(folder, base)
    source = resolve_model(base or adapter.base_id, pooling=adapter.pooling)
    adapter.check_base(source)
    return adapter, source
