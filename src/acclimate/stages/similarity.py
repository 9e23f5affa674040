"""`similarity`: the cosine of two texts, by base and by adapted."""

from __future__ import annotations

from pathlib import Path

from acclimate.configs import RunConfig
from acclimate.data.texts import typed_text
from acclimate.errors import UsageError
from acclimate.evaluation.compare import text_cosines
from acclimate.models.reading import reading_warnings
from acclimate.progress import say
from acclimate.runs.resolve import load_pair, trained_folder
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task
from acclimate.types import PAIR_ROLE


def similarity(run: Path, text_a: str, text_b: str, config: RunConfig) -> dict[str, float]:
    """Cosine of two texts, each in the role in which labelled pairs are trained.

    Args:
        run: the run's folder.
        text_a: one text.
        text_b: another.
        config: the run's model, device and dtype; `task`: the one of several tasks whose prompts are used.

    Returns:
        {"base", "adapted"}, from -1 to 1.

    Raises:
        UsageError: a text is empty.
        StorageError: the run holds no adapter.
    """
    if not text_a.strip() or not text_b.strip():
        raise UsageError("one of the texts is empty", fix="Give two texts.")
    text_a, text_b = typed_text(text_a), typed_text(text_b)
    adapter = trained_folder(RunFolder(run).adapter)
    base, adapted = load_pair(adapter, base=config.model, **one_task(run, config).config.loading)
    for note in reading_warnings({"texts": adapted.reading([text_a, text_b], PAIR_ROLE)}):
        say(f"warning: {note}")
    return {
        name: float(text_cosines(encoder, [text_a], [text_b])[0])
        for name, encoder in (("base", base), ("adapted", adapted))
    }
