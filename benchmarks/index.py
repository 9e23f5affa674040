"""The local index at 10,000 to a million rows: recall, time per query, filters, writes, memory; and peers beside it.

Rows are real texts with MiniLM's vectors (index_data.py; about 100,000, made once and kept in --cache), then
perturbations of those vectors, each with its source's text and the number of the copy as one more word. 500 further
real texts are the queries. Words are read as `index` reads English (stop words left out, stems). Every part runs in a
process of its own, so that memory is that part's; what a part found is kept in --cache/ROWS/result-PART.json, and a
second start goes on from there. At a million rows a last table says which of the numbers that were aimed at are
reached.

    python benchmarks/index.py --rows 10000 100000 1000000 [--peers] [--lancedb-python OTHER_VENV/bin/python]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import machine, table
from index_data import perturbed, real_vectors

QUERIES = 500
TIMED = 300
MODES = ("dense", "lexical", "hybrid")
SHARES = {"0.1 %": 1, "1 %": 10, "10 %": 100, "50 %": 500}
"""Of the rows that a filter lets pass -> thousandths."""
BLOCK = 20_000
"""Rows of one upsert while an index is filled."""
TOP = 10
Bar = tuple[str, float, Callable[[dict[str, Any]], float]]
BARS: list[Bar] = [
    ("dense recall@10, at least", -0.99, lambda found: -found["search"]["recall"]),
    ("dense p50, ms", 3, lambda found: found["search"]["dense"]["p50_ms"]),
    ("dense p99, ms", 15, lambda found: found["search"]["dense"]["p99_ms"]),
    ("lexical p50, ms", 20, lambda found: found["search"]["lexical"]["p50_ms"]),
    ("reopen, s", 2, lambda found: found["search"]["open_s"]),
    ("resident, GB", 1.5, lambda found: max(found["search"]["rss_gb"], found["filters"]["rss_gb"])),
    ("vectors to index, s", 120, lambda found: found["build"]["s"]),
    ("single upsert p50, ms", 10, lambda found: found["write"]["single"]["p50_ms"]),
    ("1,000 in one call, s", 0.5, lambda found: found["write"]["thousand_s"]),
    (
        "search beside a writer, p99 over the quiet one",
        2,
        lambda found: found["write"]["busy"]["p99_ms"] / found["write"]["quiet"]["p99_ms"],
    ),
    (
        "recall under filters, at least",
        -0.99,
        lambda found: -min(found["filters"][share][f"{mode}_recall"] for share in SHARES for mode in MODES[:2]),
    ),
    (
        "filters p50, ms, the slowest of all shares and modes",
        20,
        lambda found: max(found["filters"][share][mode]["p50_ms"] for share in SHARES for mode in MODES),
    ),
]
"""What a million rows are aimed at: name, the most (of a recall its negative), where it is found."""


def main() -> None:
    """Measure every number of rows; print the tables, and draw the growth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--real", type=int, default=100_000, help="real texts to encode, at most")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=Path("runs/index-benchmark"))
    parser.add_argument("--peers", action="store_true", help="also FAISS flat and FAISS HNSW")
    parser.add_argument("--lancedb-python", type=Path, help="a Python that has lancedb and numpy")
    parser.add_argument("--cells", action="store_true", help="build cells also below 100,000 rows")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        result = PARTS[arguments.part](Data(arguments.cache, arguments.rows[0], arguments.cells))
        print("RESULT " + json.dumps(result))
        return
    print(machine(), flush=True)
    real = real_vectors(arguments.shared, arguments.cache, arguments.real)
    found = {}
    for rows in arguments.rows:
        data = Data(arguments.cache, rows, arguments.cells)
        data.prepare(*real)
        parts = ["build", "search", "filters", "write"]
        found[rows] = {name: result_of(name, arguments, data) for name in parts}
        if arguments.peers:
            for kind in ("flat", "hnsw"):
                found[rows][kind] = peer(kind, Path(sys.executable), data)
        if arguments.lancedb_python:
            found[rows]["lancedb"] = peer("lancedb", arguments.lancedb_python, data)
        print_tables(rows, found[rows])
    draw(found, arguments.cache / "growth.svg")


class Data:
    """The files of one number of rows."""

    def __init__(self, cache: Path, rows: int, cells: bool) -> None:
        """Name them."""
        self.cache, self.rows, self.cells = cache, rows, cells
        self.folder = cache / f"{rows}{'-cells' if cells else ''}"
        self.index = self.folder / "index"

    def prepare(self, texts: Sequence[str], vectors: NDArray[np.float16]) -> None:
        """Write vectors, queries and the exact answers, unless they are there."""
        if (self.folder / "exact.npz").exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        queries = vectors[:QUERIES].astype(np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        rows = np.lib.format.open_memmap(
            self.folder / "vectors.npy", "w+", dtype=np.float16, shape=(self.rows, vectors.shape[1])
        )
        at = 0
        for block in perturbed(vectors[QUERIES:], self.rows):
            rows[at : at + len(block)] = block
            at += len(block)
            say(f"{at:,} of {self.rows:,} vectors written")
        np.savez(self.folder / "exact.npz", queries=queries, **exact(rows, queries))
        sources = texts[QUERIES:][: self.rows]
        write = {"queries": list(texts[:QUERIES]), "sources": list(sources)}
        (self.folder / "texts.json").write_text(json.dumps(write, ensure_ascii=False), encoding="utf-8")

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """The index, made if need be."""
        from acclimate.core.analyser import Analyser
        from acclimate.retrieval.index.local import dense
        from acclimate.retrieval.index.local.index import LocalIndex
        from acclimate.text_use import SpaceId

        if self.cells:
            dense.SCAN_ROWS = 0
        space = SpaceId("benchmark", None, "", "mean", 384, False, "")
        index = LocalIndex.open(self.index, space, Analyser("english", stop_words=True, stemming=True))
        yield index
        index.close()

    def documents(self, start: int, end: int) -> list[Any]:
        """Rows as documents."""
        from acclimate.retrieval.index.records import Document

        sources = self.texts["sources"]
        return [
            Document(
                f"d{n}",
                sources[n % len(sources)] + (f" copy{n // len(sources)}" if n >= len(sources) else ""),
                {"share": int(share_of(n)), "source": n % len(sources)},
            )
            for n in range(start, end)
        ]

    @property
    def texts(self) -> dict[str, list[str]]:
        """Texts of queries, and of the rows before they repeat."""
        if not hasattr(self, "_texts"):
            self._texts = json.loads((self.folder / "texts.json").read_text(encoding="utf-8"))
        return self._texts

    @property
    def exact(self) -> Any:
        """What exact search finds."""
        return np.load(self.folder / "exact.npz")

    @property
    def vectors(self) -> NDArray[np.float16]:
        """All rows, memory-mapped."""
        return np.load(self.folder / "vectors.npy", mmap_mode="r")


def share_of(row: int | NDArray[np.int64]) -> Any:
    """A row's number from 0 to 999, as if drawn at random."""
    return (row * 2654435761 % 2**32) * 1000 // 2**32


def exact(rows: NDArray[np.float16], queries: NDArray[np.float32]) -> dict[str, NDArray[np.int64]]:
    """The best rows of every query, of all rows and of those that each filter lets pass."""
    from acclimate.retrieval.top_k import top_k

    shares = share_of(np.arange(len(rows), dtype=np.int64))
    best = {name: (np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
            for name in ("all", *SHARES)}  # fmt: skip
    for start in range(0, len(rows), 100_000):
        block = rows[start : start + 100_000].astype(np.float32)
        for name in best:
            outside = None if name == "all" else shares[start : start + 100_000] >= SHARES[name]
            scores, places = top_k(queries, block, TOP, exclude=outside)
            scores = np.concatenate([best[name][0], scores], axis=1)
            places = np.concatenate([best[name][1], places + start], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
            best[name] = np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)
        say(f"exact answers of {min(start + 100_000, len(rows)):,} rows")
    return {name: places for name, (_, places) in best.items()}


def build(data: Data) -> dict[str, Any]:
    """Fill an index, and close it."""
    shutil.rmtree(data.index, ignore_errors=True)
    seconds = 0.0
    for start in range(0, data.rows, BLOCK):
        documents = data.documents(start, min(start + BLOCK, data.rows))
        vectors = data.vectors[start : start + BLOCK].astype(np.float32)
        started = time.perf_counter()
        if start == 0:
            stack = contextlib.ExitStack()
            index = stack.enter_context(data.opened())
        index.upsert(documents, vectors)
        seconds += time.perf_counter() - started
        say(f"{start + len(documents):,} rows in {seconds:.0f} s")
    started = time.perf_counter()
    stack.close()
    closing = time.perf_counter() - started
    size = sum(path.stat().st_size for path in data.index.rglob("*") if path.is_file())
    return {"s": seconds + closing, "closing_s": closing, "bytes": size, "rss_gb": peak_gb()}


def search(data: Data) -> dict[str, Any]:
    """Open an index and search it."""
    # Imported first, so that opening is no import.
    from acclimate.retrieval.index.local.index import LocalIndex  # noqa: F401
    from acclimate.retrieval.index.records import Query

    started = time.perf_counter()
    with data.opened() as index:
        opening = time.perf_counter() - started
        found, queries, texts = data.exact, data.exact["queries"], data.texts["queries"]
        hits = [index.search(Query(vector=query, mode="dense", top_k=TOP)) for query in queries]
        result = {"open_s": opening, "recall": recall(hits, found["all"]), "kind": index.info().details["dense"]}
        for mode in MODES:
            result[mode] = timed(lambda n, mode=mode: index.search(Query(texts[n], queries[n], mode, TOP)))
        return result | {"rss_gb": rss_gb()}


def filters(data: Data) -> dict[str, Any]:
    """Search under filters."""
    from acclimate.core.filter_language import parse_filter
    from acclimate.retrieval.index.records import Query

    found, queries, texts = data.exact, data.exact["queries"], data.texts["queries"]
    result: dict[str, Any] = {}
    with data.opened() as index:
        started = time.perf_counter()
        index.count(parse_filter("share < 1"))
        result["first_s"] = time.perf_counter() - started
        result["rss_gb"] = rss_gb()
        deep = [index.search(Query(text, mode="lexical", top_k=10_000)) for text in texts[:50]]
        for name, thousandths in SHARES.items():
            passing = parse_filter(f"share < {thousandths}")
            one: dict[str, Any] = {}
            hits = [index.search(Query(vector=query, mode="dense", top_k=TOP, filter=passing)) for query in queries]
            one["dense_recall"] = recall(hits, found[name])
            one["lexical_recall"] = lexical_recall(index, passing, thousandths, texts, deep)
            for mode in MODES:
                one[mode] = timed(
                    lambda n, mode=mode, passing=passing: index.search(Query(texts[n], queries[n], mode, TOP, passing))
                )
            result[name] = one
    return result


def lexical_recall(index: Any, passing: Any, thousandths: int, texts: Sequence[str], deep: Sequence[Any]) -> float:
    """Of the scores of the best that pass, among the first 10,000 without a filter, the share that is reached."""
    from acclimate.retrieval.index.records import Query

    reached, wanted = 0, 0
    for text, ranking in zip(texts, deep, strict=False):
        best = [hit.score for hit in ranking if hit.metadata["share"] < thousandths][:TOP]
        scores = [hit.score for hit in index.search(Query(text, mode="lexical", top_k=TOP, filter=passing))]
        reached += sum(score >= one - 1e-3 for score, one in zip(scores, best, strict=False))
        wanted += len(best)
    return reached / max(wanted, 1)


def write(data: Data) -> dict[str, Any]:
    """Single upserts, a thousand in one call, and searches while another thread writes."""
    from acclimate.retrieval.index.records import Query

    queries, texts = data.exact["queries"], data.texts["queries"]
    with data.opened() as index:
        rows, vectors = data.documents(0, 2000), data.vectors[:2000].astype(np.float32)
        singles = timed(lambda n: index.upsert([rows[n]], vectors[n : n + 1]))
        mixed = [*rows[:500], *(type(one)(f"new-{one.id}", one.text, one.metadata) for one in rows[500:1000])]
        started = time.perf_counter()
        index.upsert(mixed, vectors[:1000])
        thousand = time.perf_counter() - started

        def ask(n: int) -> Any:
            return index.search(Query(texts[n], queries[n], "dense", TOP))

        quiet = timed(ask)
        stop = threading.Event()

        def keep_writing() -> None:
            n = 0
            while not stop.wait(0.01):
                index.upsert(rows[n : n + 20], vectors[n : n + 20])
                n = (n + 20) % 1980

        thread = threading.Thread(target=keep_writing)
        thread.start()
        busy = timed(ask)
        stop.set()
        thread.join()
        index.delete([one.id for one in mixed[500:]])
    return {"single": singles, "thousand_s": thousand, "quiet": quiet, "busy": busy}


def recall(hits: Sequence[Sequence[Any]], wanted: NDArray[np.int64]) -> float:
    """Mean share of the exact best that were found."""
    shares = [
        len({int(hit.id.removeprefix("d")) for hit in one} & set(best.tolist())) / len(best)
        for one, best in zip(hits, wanted, strict=True)
    ]
    return float(np.mean(shares))


def timed(work: Callable[[int], object]) -> dict[str, float]:
    """Milliseconds of a call: median and 99th percentile of some hundred calls, after 20 that are not counted."""
    for n in range(20):
        work(n)
    spans = []
    for n in range(TIMED):
        started = time.perf_counter()
        work(n)
        spans.append(1000 * (time.perf_counter() - started))
    return {"p50_ms": float(np.median(spans)), "p99_ms": float(np.percentile(spans, 99))}


def rss_gb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e9


def peak_gb() -> float:
    """Memory of this process at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


PARTS = {"build": build, "search": search, "filters": filters, "write": write}


def result_of(part: str, arguments: argparse.Namespace, data: Data) -> dict[str, Any]:
    """A part's result: kept, or measured in a process of its own."""
    command = [sys.executable, __file__, "--part", part, "--rows", str(data.rows), "--cache", str(data.cache)]
    return kept(data, part, [*command, *(["--cells"] if arguments.cells else [])])


def peer(kind: str, python: Path, data: Data) -> dict[str, Any]:
    """The same of a peer, by index_peers.py."""
    return kept(data, kind, [str(python), str(Path(__file__).with_name("index_peers.py")), kind, str(data.folder)])


def kept(data: Data, name: str, command: Sequence[str]) -> dict[str, Any]:
    """Run a command that prints its result, unless its result is kept from an earlier start; {} where it fails."""
    file = data.folder / f"result-{name}.json"
    if not file.exists():
        say(f"{data.rows:,} rows: {name}")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("RESULT "):
                    file.write_text(line.removeprefix("RESULT "))
                else:
                    print(line, end="", flush=True)
        if process.returncode:
            say(f"{data.rows:,} rows: {name} ended with {process.returncode}")
            return {}
    return json.loads(file.read_text())


def print_tables(rows: int, found: dict[str, Any]) -> None:
    """Print what was found for one number of rows; a part that failed is left out."""
    build, search, filters, write = (found[name] for name in ("build", "search", "filters", "write"))
    print(f"\n{rows:,} rows")
    if build:
        print(
            f"built in {build['s']:.1f} s ({build['bytes'] / 1e6:,.0f} MB), at most {build['rss_gb']:.2f} GB resident"
        )
    if search:
        print(
            f"{search['kind']}: recall@10 {search['recall']:.4f}, opened in {search['open_s']:.2f} s, resident "
            f"{search['rss_gb']:.2f} GB"
        )
        print(table(["", "p50 / p99, ms"], [[mode, ms(search[mode])] for mode in MODES]))
    if filters:
        print(f"first filter {filters['first_s']:.2f} s, resident {filters['rss_gb']:.2f} GB")
        header = ["filter", "dense recall", "lexical recall", "dense", "lexical", "hybrid, p50 / p99 ms"]
        recalls = {share: [f"{filters[share][f'{mode}_recall']:.4f}" for mode in MODES[:2]] for share in SHARES}
        print(table(header, [[share, *recalls[share], *(ms(filters[share][m]) for m in MODES)] for share in SHARES]))
    if write:
        print(
            f"single upsert {ms(write['single'])} ms; 1,000 in one call {write['thousand_s']:.2f} s; dense search "
            f"quiet {ms(write['quiet'])}, beside a writer {ms(write['busy'])} ms"
        )
    peers = [name for name in ("flat", "hnsw", "lancedb") if found.get(name)]
    if peers:
        own = [["this index", build, search]] if build and search else []
        lines = [*own, *([name, found[name], found[name]] for name in peers)]
        header = ["", "built, s", "recall@10", "p50 / p99, ms", "resident, GB"]
        print(table(header, [[name, f"{one['s']:.1f}", f"{two['recall']:.4f}", ms(two["dense"]), f"{two['rss_gb']:.2f}"]
                             for name, one, two in lines]))  # fmt: skip
    if rows >= 1_000_000:
        print(table(["aimed at", "at most", "found", ""], [judged(bar, found) for bar in BARS]))


def ms(one: dict[str, float]) -> str:
    """Median and 99th percentile."""
    return f"{one['p50_ms']:.2f} / {one['p99_ms']:.2f}"


def judged(bar: Bar, found: dict[str, Any]) -> list[str]:
    """A line of the last table."""
    name, most, value = bar
    try:
        got = value(found)
    except KeyError:
        return [name, f"{abs(most):g}", "failed", "missed"]
    return [name, f"{abs(most):g}", f"{abs(got):.4g}", "reached" if got <= most else "missed"]


def draw(found: dict[int, Any], file: Path) -> None:
    """Plot the time per query over the number of rows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    searched = {rows: one["search"] for rows, one in found.items() if one["search"]}
    for mode in MODES:
        axes.loglog(list(searched), [one[mode]["p50_ms"] for one in searched.values()], marker="o", label=mode)
    axes.set(xlabel="rows", ylabel="ms per query, median", title="Growth of the local index")
    axes.legend()
    figure.savefig(file)
    print(f"drawn: {file}")


def say(text: str) -> None:
    """Print progress at once."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
