"""A finished folder -> the hub, by huggingface_hub's own client and the user's own login."""

from __future__ import annotations

from pathlib import Path

from acclimate.errors import StorageError, UsageError, first_line
from acclimate.files import CONFIG_FILE, INPUTS_FILE
from acclimate.formats.sources import HUB_ID
from acclimate.ownership import MARKER_FILE

NOT_FOR_OTHERS = [CONFIG_FILE, INPUTS_FILE, MARKER_FILE]
"""Files with paths of this machine."""


def upload(folder: Path, hub_id: str) -> None:
    """Upload a folder as a private model; it can be made public there.

    Args:
        folder: finished.
        hub_id: OWNER/NAME.

    Raises:
        UsageError: no such id can be.
        StorageError: the hub cannot be reached, or refuses.
    """
    if not HUB_ID.fullmatch(hub_id):
        raise UsageError(f"{hub_id!r} is no id on a hub", possible="OWNER/NAME")
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(hub_id, private=True, exist_ok=True)
        api.upload_folder(repo_id=hub_id, folder_path=folder, ignore_patterns=NOT_FOR_OTHERS)
    except Exception as error:  # the client's, and those of the libraries below it: no login, no network, no right
        raise StorageError(
            f"{folder} is written, and could not be uploaded as {hub_id} ({first_line(error)})",
            fix="Go online, log in with: hf auth login, and start the same command again.",
        ) from error
