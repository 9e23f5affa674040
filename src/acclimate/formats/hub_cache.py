"""The packaged default model, made known to the hub's local cache."""

from __future__ import annotations

import contextlib
from pathlib import Path

from acclimate.formats.sources import DEFAULT_SHA256, ModelSource


def share_packaged(source: ModelSource) -> None:
    """Link the packaged copy of a hub model into the hub's cache, as a download would have left it there.

    An adapter names its base by the hub's id, and PEFT, transformers and sentence-transformers look for that id in the
    hub's cache and then on the hub: without this, `SentenceTransformer("RUN/adapter")` would need the network
    although the weights (verified by sha256) are on this machine. Does nothing where the id is in the cache already,
    where `source` is another model, or where the cache cannot be written: the hub is asked then, as always.
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    entry = cache / f"models--{source.id.replace('/', '--')}"
    if source.sha256 != DEFAULT_SHA256 or entry.exists():
        return
    revision = source.sha256[:40]
    with contextlib.suppress(OSError):
        for path in sorted(source.files.folder.rglob("*")):
            if path.is_file():
                link = entry / "snapshots" / revision / path.relative_to(source.files.folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.absolute())
        # Last, because the cache counts for nothing without it.
        (entry / "refs").mkdir()
        (entry / "refs" / "main").write_text(revision)
