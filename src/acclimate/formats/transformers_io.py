"""What every call of transformers' loading and saving needs: quiet, and with errors of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from acclimate.errors import ModelError

LOADING_ERRORS = (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, TypeError, SafetensorError)
"""What transformers raises for a damaged folder, an unknown architecture or a missing package: anything."""

OWN_CODE = (
    "The model brings code of its own, which is not run here; look for a version that transformers knows by itself."
)


@contextlib.contextmanager
def model_errors(folder: Path) -> Iterator[None]:
    """Turn whatever transformers raises while loading from `folder` into a ModelError."""
    try:
        yield
    except LOADING_ERRORS as error:
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        fix = OWN_CODE if "trust_remote_code" in str(error) else "Check that the folder is complete."
        raise ModelError(f"{folder} cannot be loaded ({reason})", fix=fix) from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no load report while loading; missing weights are our own error."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
