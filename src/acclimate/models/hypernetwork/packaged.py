"""The hypernetwork that comes with the package, and any other by its folder."""

from __future__ import annotations

from pathlib import Path

from acclimate.errors import ModelError
from acclimate.models.hypernetwork.saving import FACTS_FILE

DEFAULT = "default"


def find_hypernetwork(name: str) -> Path:
    """Return the folder of a hypernetwork.

    Args:
        name: a folder, or "default" for the one of the default model.

    Raises:
        ModelError: there is none.
    """
    folder = Path(__file__).parent / DEFAULT if name == DEFAULT else Path(name).expanduser()
    if not (folder / FACTS_FILE).is_file():
        raise ModelError(
            f"{name}: no hypernetwork there",
            possible="a folder that acclimate hypernetwork-train has written, or default",
        )
    return folder
