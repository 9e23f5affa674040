"""The command `hypernetwork-train`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command, ConfigFile, Given
from acclimate.configs.hypernetwork import GeneratorName, NetworkConfig, Objective, Through
from acclimate.types import Sides

DEFAULTS = NetworkConfig()


def hypernetwork_train(
    tasks: Path,
    /,
    *,
    out: Path,
    generator: GeneratorName = DEFAULTS.generator,
    through: Through = DEFAULTS.through,
    last_blocks: int = 0,
    sides: Sides | None = None,
    steps: int = 0,
    shared_steps: int = 0,
    shared_rank: int = 0,
    own_rank: int = 0,
    objective: Objective = DEFAULTS.objective,
    unknown_share: float = DEFAULTS.unknown_share,
    learning_rate: float = 0.0,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """Train a hypernetwork on a library of tasks; the same command goes on after an interruption.

    Args:
        tasks: the library's folder.
        out: the hypernetwork's folder.
        generator: what is generated; or a rival, which is trained to be compared with.
        through: query-vector: a map on queries' final vectors; encoder: LoRA on the last blocks of the model.
        last_blocks: how many blocks those are; 0: 2.
        sides: query: queries only are changed; both: documents too. Both through the encoder if not given.
        steps: steps of the generator's training; 0: 1,500 on query vectors, 400 through the encoder.
        shared_steps: steps of the multi-task adapter's training before it; 0: 300 or 200.
        shared_rank: rank of the multi-task adapter; 0: 32 on query vectors, 8 through the encoder.
        own_rank: ranks beside it; 0: the same.
        objective: relevance: by which documents are relevant; reconstruction: towards an adapter trained on each task;
            warm-up: that first, for as many steps.
        unknown_share: share of the conditions that say something unknown, at which the base shall stay as it is.
        learning_rate: peak learning rate; 0: 0.002 on query vectors, 0.0005 through the encoder.
        config: TOML file with settings; flags win over it.
        settings: of the base.
    """
    from acclimate.cli import instant_tables
    from acclimate.flows import instant_verbs

    network = NetworkConfig(
        generator=generator,
        through=through,
        last_blocks=last_blocks,
        sides=sides,
        steps=steps,
        shared_steps=shared_steps,
        shared_rank=shared_rank,
        own_rank=own_rank,
        objective=objective,
        unknown_share=unknown_share,
        learning_rate=learning_rate,
    )
    found = instant_verbs.hypernetwork_train(tasks, out=out, network=network, config=config, **settings)
    instant_tables.show_network(found, out)


COMMAND = Command("hypernetwork-train", hypernetwork_train, example="acclimate hypernetwork-train tasks --out hyper")
