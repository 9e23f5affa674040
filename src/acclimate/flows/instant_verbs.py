"""The commands about instant adapters as Python functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acclimate.configs.hypernetwork import NetworkConfig
from acclimate.flows.settings import Config, configured
from acclimate.report.result import Result


def hypernetwork_tasks(
    sources: Sequence[str | Path],
    *,
    out: str | Path,
    held_out: Sequence[str | Path] = (),
    far: Sequence[str] = ("ending",),
    domains: int = 4,
    group_column: str | None = None,
    languages: Sequence[str] = ("en",),
    config: Config = None,
    **settings: Any,
) -> Result:
    """Make a library of tasks from corpora: many definitions of relevance over their texts.

    Args:
        sources: files or folders of queries with the documents that answer them.
        out: the library's folder.
        held_out: sources that are never trained on.
        far: attributes that are never trained on.
        domains: number of themes of each source that become a task of their own.
        group_column: a column that says where a text comes from (its module, its category): one attribute more.
        languages: of the descriptions, "en" and "zh"; tests ask in the first.
        config: see `flows.settings.Config`.
        settings: such as `limit=1000`.
    """
    effective = configured("hypernetwork-tasks", settings, config)
    from acclimate.stages.hypernetwork_tasks import hypernetwork_tasks as stage

    names = [str(source) for source in sources]
    unseen = [str(source) for source in held_out]
    asked: dict[str, Any] = {
        "far": tuple(far),
        "domains": domains,
        "group_column": group_column,
        "languages": tuple(languages),
    }
    return Result(stage(names, Path(out), effective, held_out=unseen, **asked), Path(out))


def hypernetwork_train(
    tasks: str | Path,
    *,
    out: str | Path,
    network: NetworkConfig | None = None,
    config: Config = None,
    **settings: Any,
) -> Result:
    """Train a hypernetwork on a library of tasks; after an interruption the same call goes on.

    Args:
        tasks: the library's folder.
        out: the hypernetwork's folder.
        network: what is trained, and for how long.
        config: see `flows.settings.Config`.
        settings: such as `model="intfloat/e5-small-v2"`.
    """
    effective = configured("hypernetwork-train", settings, config)
    from acclimate.stages.hypernetwork_train import hypernetwork_train as stage

    return Result(stage(Path(tasks), Path(out), network or NetworkConfig(), effective), Path(out))


def hypernetwork_evaluate(
    hypernetworks: Sequence[str | Path],
    *,
    tasks: str | Path,
    out: str | Path,
    references: bool = True,
    config: Config = None,
    **settings: Any,
) -> Result:
    """Measure hypernetworks on a library's held-out tasks, beside what they have to be better than.

    Args:
        hypernetworks: their folders.
        tasks: the library's folder.
        out: the folder to write, with a page.
        references: measure what takes minutes too: own adapters, and the description put before the query.
        config: see `flows.settings.Config`.
        settings: such as `sign_flips=5000`.
    """
    effective = configured("hypernetwork-evaluate", settings, config)
    from acclimate.stages.hypernetwork_evaluate import hypernetwork_evaluate as stage

    folders = [Path(folder) for folder in hypernetworks]
    return Result(stage(folders, Path(tasks), Path(out), effective, references=references), Path(out))


def generate(
    *,
    out: str | Path,
    hypernetwork: str | Path = "default",
    describe: str | None = None,
    pairs: str | Path | None = None,
    sample: str | Path | None = None,
    corpus: str | Path | None = None,
    config: Config = None,
    **settings: Any,
) -> Result:
    """Make an adapter without training, from a description, a few pairs, sample texts, or several of them.

    Args:
        out: the adapter's folder.
        hypernetwork: its folder, or "default".
        describe: what shall count as relevant, in a sentence.
        pairs: a file of queries, each with a relevant document.
        sample: a file of texts of the domain.
        corpus: a file of texts among which the pairs' documents have to be found, for the check.
        config: see `flows.settings.Config`.
        settings: such as `device="cpu"`.

    Returns:
        "kept" (what was written), "check" (None where there are too few pairs), "distance" and "generation_s".
    """
    effective = configured("generate", settings, config)
    from acclimate.stages.generate import Asked
    from acclimate.stages.generate import generate as stage

    files = [None if path is None else Path(path) for path in (pairs, sample, corpus)]
    asked = Asked(describe=describe, pairs=files[0], sample=files[1], corpus=files[2])
    return Result(stage(str(hypernetwork), asked, Path(out), effective), Path(out))
