"""The command `vectors`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command, ConfigFile, Given


def vectors(run: Path, /, *, config: ConfigFile = None, settings: Given) -> None:
    """Measure in which forms RUN's vectors can be stored: float16, INT8, binary, fewer dimensions.

    Args:
        run: the run's folder.
        config: TOML file with settings; flags win over it.
        settings: of the model and the forms.
    """
    from acclimate.cli import engine_tables
    from acclimate.flows.export import vectors as verb

    engine_tables.show_vectors(verb(run, config=config, **settings), run)


COMMAND = Command(
    "vectors",
    vectors,
    example="acclimate vectors runs/farm --cut-dims 128",
    first=(
        "cut_dims",
        "oversampling",
        "model",
        "task",
        "max_tokens",
        "seed",
        "device",
        "dtype",
        "sign_flips",
        "confidence",
    ),
)
