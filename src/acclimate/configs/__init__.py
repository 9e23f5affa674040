"""Every setting of every stage, once: frozen dataclasses, in which the string under a field is its documentation.

`RunConfig` is the whole run: shared fields at the top, one flat section per stage. It is what `RUN/config.toml`
holds, what a stage function takes, and what the command line's flags are made from. Field names are unique over all
sections, so that every one of them is also a flag (`rank` -> `--rank`).
"""

from acclimate.configs.answer import AnswerConfig
from acclimate.configs.commands import (
    MODEL,
    READS,
    SHORT,
    check_format,
    check_settings,
    commands_that_read,
    full_names,
    settings_of,
    used,
)
from acclimate.configs.datasets import DatasetConfig
from acclimate.configs.domain import DomainConfig
from acclimate.configs.endpoint import EndpointConfig
from acclimate.configs.evaluate import EvaluateConfig
from acclimate.configs.export import ExportConfig
from acclimate.configs.images import ImagesConfig
from acclimate.configs.index import IndexConfig
from acclimate.configs.merge import MergeConfig
from acclimate.configs.mine import MineConfig
from acclimate.configs.objective import ObjectiveConfig
from acclimate.configs.pairs import PairsConfig
from acclimate.configs.prepare import AUTO, PrepareConfig
from acclimate.configs.refresh import RefreshConfig
from acclimate.configs.renamed import RENAMED, flag, with_current_names
from acclimate.configs.rerank import RerankConfig, Retriever
from acclimate.configs.route import RouteConfig
from acclimate.configs.run import (
    DEFAULT_MODEL,
    PROMPT_OR_INSTRUCTION,
    RunConfig,
    effective,
    for_dataset,
    with_overrides,
)
from acclimate.configs.serve import ServeConfig
from acclimate.configs.stages import StagesConfig
from acclimate.configs.toml import NONE, SETTINGS_MARK, checked_settings, config_from_mapping, dump_config, load_config
from acclimate.configs.train import TrainConfig
from acclimate.configs.tune import TuneConfig
from acclimate.configs.vectors import VectorsConfig

__all__ = [
    "AUTO",
    "DEFAULT_MODEL",
    "MODEL",
    "NONE",
    "PROMPT_OR_INSTRUCTION",
    "READS",
    "RENAMED",
    "SETTINGS_MARK",
    "SHORT",
    "AnswerConfig",
    "DatasetConfig",
    "DomainConfig",
    "EndpointConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ImagesConfig",
    "IndexConfig",
    "MergeConfig",
    "MineConfig",
    "ObjectiveConfig",
    "PairsConfig",
    "PrepareConfig",
    "RefreshConfig",
    "RerankConfig",
    "Retriever",
    "RouteConfig",
    "RunConfig",
    "ServeConfig",
    "StagesConfig",
    "TrainConfig",
    "TuneConfig",
    "VectorsConfig",
    "check_format",
    "check_settings",
    "checked_settings",
    "commands_that_read",
    "config_from_mapping",
    "dump_config",
    "effective",
    "flag",
    "for_dataset",
    "full_names",
    "load_config",
    "settings_of",
    "used",
    "with_current_names",
    "with_overrides",
]
