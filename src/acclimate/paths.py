"""Names that are meant as paths. Standard library only."""

from __future__ import annotations

import difflib
from pathlib import Path


def missing_path(name: str) -> str | None:
    """Describe what is wrong with a name that is meant as a path and leads nowhere; None for any other name.

    Names such as `data/pairs` may be ids on a hub, too: one that lies in a folder which is here is meant as a path.
    """
    path = Path(name).expanduser()
    meant = name.startswith((".", "/", "~")) or (len(path.parts) > 1 and Path(path.parts[0]).is_dir())
    if path.exists() or not meant:
        return None
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    held = sorted(entry.name for entry in folder.iterdir())
    wanted = path.relative_to(folder).parts[0]
    near = difflib.get_close_matches(wanted, held, n=3, cutoff=0.5)
    held = near or held[:8]
    return f"no {wanted!r} in the folder {folder}, which holds {', '.join(held) or 'nothing'}"
