"""The command `serve`."""

from __future__ import annotations

import importlib.util

from acclimate.cli.options import Command, ConfigFile, Given
from acclimate.errors import MissingExtraError, UsageError

NEEDED = ("fastapi", "uvicorn", "httptools", "orjson", "prometheus_client")
"""Packages of the extra [serve]; uvloop is taken where it is there."""


def serve(
    *runs: str,
    reranker: str | None = None,
    workers: int = 1,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """Embeddings, reranking and search over HTTP, by the clients of OpenAI, Cohere and text-embeddings-inference.

    Args:
        runs: runs, adapters' folders or models, all of one base; NAME=PLACE gives one another name.
        reranker: a run with a reranker, a folder, or a hub id; that of the first run that has one if not given.
        workers: 1; more are refused, and why is said.
        config: TOML file with settings; flags win over it. A run's own config.toml is not read for [serve].
        settings: of the service and the models.
    """
    if workers != 1:
        raise UsageError(
            f"workers = {workers}: one process has the model, one thread of it computes, and batches are made of all "
            "requests; several processes would share nothing, and no two of them may write an index",
            fix="Leave it out. For more than one machine can do, start one service that writes, others with "
            "--read-only, and a proxy before them.",
        )
    if not runs:
        raise UsageError("nothing to serve is named", fix="Name a run: acclimate serve RUN.")
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise MissingExtraError("serve", "serve")
    from acclimate.flows.settings import configured
    from acclimate.serve.server import serve as start

    start(runs, configured("serve", settings, config), reranker)


COMMAND = Command(
    "serve",
    serve,
    example="acclimate serve runs/farm runs/bank --port 8000",
    first=(
        "host",
        "port",
        "keys",
        "read_only",
        "default_input_type",
        "adapter_root",
        "deadline_s",
        "batch_tokens",
        "model",
        "device",
    ),
)
