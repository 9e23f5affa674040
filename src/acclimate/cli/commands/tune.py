"""The command `tune`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command, ConfigFile, Given


def tune(run: Path, /, *, config: ConfigFile = None, settings: Given) -> None:
    """Measure this machine's backends with RUN's model; serve takes the fastest that holds the gate.

    Args:
        run: the run's folder.
        config: TOML file with settings; flags win over it.
        settings: of the measurement and the gate.
    """
    from acclimate.cli import engine_tables
    from acclimate.flows.export import tune as verb

    engine_tables.show_tuned(verb(run, config=config, **settings), run)


COMMAND = Command("tune", tune, example="acclimate tune runs/farm --tune-for bulk")
