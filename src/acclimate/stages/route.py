"""`route`: several experts over one pooled corpus: what routing between them gains, and what it should not lose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig, load_config
from acclimate.data.dataset import Dataset
from acclimate.errors import UsageError
from acclimate.evaluation.pooled_sets import NamedData, pool_sets
from acclimate.evaluation.routing import RoutingTest
from acclimate.retrieval.experts import Experts, load_experts, names_of
from acclimate.retrieval.token_router import TokenRouter
from acclimate.runs.guards import guard_data, guard_names
from acclimate.runs.opening import open_retrieval_dataset
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task
from acclimate.runs.trained_on import trained_on, without_seen


def route(runs: Sequence[Path], config: RunConfig) -> dict[str, Any]:
    """Measure the routing between the adapters of several runs, on the test split of each and on data outside.

    Args:
        runs: each with a dataset and an adapter, all of one base.
        config: the model, `route`, `limit` (test queries of each set), `seed`, `evaluate.sign_flips` and `confidence`.

    Returns:
        what `evaluation.reports.RoutingReport` says, and "left_out": test queries of each set that an expert was
        trained on, or chosen by, and that therefore prove nothing.

    Raises:
        UsageError: fewer than two runs; two of one name; no adapter, or one without centroids; labelled pairs.
        StorageError: a run without a dataset.
        DataError: outside data that cannot be read, or all of it was trained on.
    """
    test, left_out = routing_test(runs, config)
    return {**test.report(config.evaluate, config.seed), "left_out": left_out}


def routing_test(runs: Sequence[Path], config: RunConfig) -> tuple[RoutingTest, dict[str, int]]:
    """Rank for every query of several runs, and of data outside, with everything that could answer it.

    Args:
        runs: see `route`.
        config: see `route`.

    Returns:
        the scores of every query, and how many test queries of each set were left out.

    Raises:
        UsageError: see `route`, as for all the others.
    """
    settings, names = config.route, names_of(runs)
    if len(names) < 2:
        raise UsageError(f"route between {len(names)} run{'' if len(names) == 1 else 's'}", possible="two runs or more")
    places: dict[str, str | Path] = dict(names)
    multi = None
    if settings.multi_domain is not None:
        multi = f"multi-domain {Path(settings.multi_domain).name}"
        places[multi] = Path(settings.multi_domain)
    own = {name: _dataset(run) for name, run in names.items()}
    outside = _outside(settings.outside, config)
    seen = trained_on([*places.values(), config.model])
    sets, left_out = [], {}
    for name, data in {**own, **outside}.items():
        kept, left_out[name] = without_seen(data, seen, name)
        sets.append(NamedData(name, kept, name if name in own else None))
    experts = load_experts(
        places,
        config.model,
        unrouted=[multi] if multi else [],
        device=config.device,
        dtype=config.dtype,
    )
    test = RoutingTest(
        experts,
        pool_sets(sets, limit=config.limit, spanning=settings.spanning, seed=config.seed),
        tokens=_token_router(experts, own),
        multi=multi,
        most=settings.mixed_experts,
        cache=RunFolder(next(iter(names.values()))).cache,
    )
    return test, left_out


def _dataset(run: Path) -> Dataset:
    """The retrieval data of a run, with its test split."""
    remembered = RunFolder(run).remembered()
    own = RunConfig() if remembered is None else load_config(remembered)
    return open_retrieval_dataset(one_task(run, own).dataset)


def _outside(sources: Sequence[str], config: RunConfig) -> dict[str, Dataset]:
    """Data that is all test, or has a test split of its own."""
    read = guard_data(sources, seed=config.seed, limit=None, undivided=True)
    return {f"{name} (outside)": data for name, data in zip(guard_names(sources), read, strict=True)}


def _token_router(experts: Experts, own: dict[str, Dataset]) -> TokenRouter:
    """A router by tokens, fitted to what the experts were trained on."""
    queries = {name: [row.anchor for row in data.examples] for name, data in own.items()}
    unseen = {name: [data.queries[query] for query in data.qrels.get("dev", {})] for name, data in own.items()}
    return TokenRouter.fit(experts.base.tokenizer, queries, unseen)
