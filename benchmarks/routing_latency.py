"""What each way of choosing adapters adds to a query: alone, and through the service, one query at a time.

    python benchmarks/routing_latency.py RUN RUN …

The runs have adapters for queries alone over one base, such as those that `routing.py` has made (FOLDER/runs/seed-0/*).
The first gets an index of its own corpus, where it has none. The caches of the service are off. Ways are measured in
turn, query by query. It takes about a minute and wants a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from acclimate.configs import RunConfig, ServeConfig, with_overrides
from acclimate.retrieval.experts import load_experts
from acclimate.retrieval.routing import route as decide
from acclimate.retrieval.token_router import TokenRouter
from acclimate.serve.server import Process
from acclimate.stages.index import index
from common import machine, processor, table


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--queries", type=int, default=50, help="of each run")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    asked = arguments.runs, arguments.queries, arguments.device
    ms = {**alone(*asked), **through_the_service(*asked)}
    print(f"{processor()}; {machine()}\n")
    print(table(["step", "ms (median)"], [[name, f"{value:.2f}"] for name, value in ms.items()]))


def alone(runs: Sequence[Path], count: int, device: str) -> dict[str, float]:
    """Median milliseconds of a query, one at a time, without the service."""
    experts = load_experts({run.name: run for run in runs}, device=device)
    trained = trained_queries(runs)
    started = time.perf_counter()
    tokens = TokenRouter.fit(experts.base.tokenizer, trained, {})
    fit_s = time.perf_counter() - started
    texts = [text for queries in trained.values() for text in queries[:count]]
    names, one = list(trained), runs[0].name
    vectors = {text: experts.base.encode([text], "query") for text in texts}

    def share(text: str, mode: Any) -> Mapping[str, float]:
        return decide(mode, experts.router.distances(vectors[text])[0], experts.router.radii).weights

    shares = {text: share(text, "mix") for text in texts}
    ways: dict[str, Callable[[str], object]] = {
        "alone: one adapter, named": lambda text: experts.encode([text], [{one: 1.0}]),
        "alone: the base's pass, for centroids": lambda text: experts.base.encode([text], "query"),
        "alone: the decision by centroids after it": lambda text: share(text, "auto"),
        "alone: the decision by tokens": lambda text: decide("auto", tokens.distances([text])[0], tokens.radii),
        "alone: two adapters mixed in one pass": lambda text: experts.encode([text], [dict.fromkeys(names[:2], 0.5)]),
        "alone: mix, by the query's shares": lambda text: experts.encode([text], [shares[text]]),
        "alone: fuse, two adapters in one batch": lambda text: experts.encode(
            [text] * 2, [{name: 1.0} for name in names[:2]]
        ),
    }
    return {**medians(ways, texts), "alone: fitting the router by tokens, once": 1000 * fit_s}


def through_the_service(runs: Sequence[Path], count: int, device: str) -> dict[str, float]:
    """Median milliseconds of a dense search over HTTP, by what chooses the adapter."""
    trained = trained_queries(runs)
    texts = [text for queries in trained.values() for text in queries[count : 2 * count]]
    config = RunConfig(device=device, serve=ServeConfig(port=0, results_mb=0, cache_mb=0))
    if not (runs[0] / "index").exists():
        index(runs[0], [], None, config)
    found: dict[str, float] = {}
    for router in ("centroids", "tokens"):
        process = Process([str(run) for run in runs], with_overrides(config, {"router": router}))
        thread = threading.Thread(target=process.run)
        thread.start()
        try:
            with httpx.Client(base_url=process.address, timeout=300) as client:
                while client.get("/readyz").status_code != 200:
                    time.sleep(0.1)

                def ask(text: str, adapter: str, client: httpx.Client = client) -> None:
                    body = {"index": runs[0].name, "query": text, "mode": "dense", "adapter": adapter}
                    client.post("/v1/search", json=body).raise_for_status()

                adapters = (runs[0].name, "auto", "mix", "fuse")
                ways = {
                    f"service, by {router}: {name}": lambda text, name=name: ask(text, name)  # type: ignore[misc]
                    for name in adapters
                }
                found |= medians(ways, texts)
        finally:
            process.stop()
            thread.join()
    return found


def trained_queries(runs: Sequence[Path]) -> dict[str, list[str]]:
    """The training queries of runs, in the order of their files."""
    return {
        run.name: [json.loads(line)["anchor"] for line in (run / "dataset" / "examples.jsonl").open()] for run in runs
    }


def medians(ways: Mapping[str, Callable[[str], object]], texts: Sequence[str]) -> dict[str, float]:
    """Median milliseconds over the texts, of ways in turn, after some texts that are not counted."""
    for text in texts[:10]:
        for way in ways.values():
            way(text)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for text in texts:
        for name, way in ways.items():
            started = time.perf_counter()
            way(text)
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(of) for name, of in times.items()}


if __name__ == "__main__":
    main()
