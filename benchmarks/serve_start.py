"""How soon `acclimate serve RUN` answers: seconds from the command to `/livez`, and to the first reply of a model.

    python benchmarks/serve_start.py runs/demo [--rounds 3]

The first start after a boot reads torch from the disk, and is the slow one: all rounds are printed, and this script
imports nothing that would read it before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HOST = "127.0.0.1"
START_S = 120.0
AIM_S = 10.0
POLL_S = 0.02


def main() -> None:
    """Print a row for each start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("| start | /livez, s | first vector, s |\n|---|---|---|")
    for number in range(arguments.rounds):
        alive_s, answered_s = start(arguments.run)
        missed = "" if answered_s <= AIM_S else " (missed)"
        print(f"| {number + 1} | {alive_s:.2f} | {answered_s:.2f}{missed} |", flush=True)
    print(f"Aim: {AIM_S:g} s.")


def start(run: Path) -> tuple[float, float]:
    """Start the service of a run and stop it; seconds until it lives, and until a text has become a vector."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "acclimate", "serve", str(run), "--port", port]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stderr=log)
        try:
            wait(process, f"http://{HOST}:{port}/livez", None)
            alive_s = time.perf_counter() - started
            wait(process, f"http://{HOST}:{port}/v1/embeddings", {"model": f"{run.name}@query", "input": "rain"})
            return alive_s, time.perf_counter() - started
        except TimeoutError as error:
            log.seek(0)
            raise SystemExit(f"{error}:\n{log.read().decode()[-2000:]}") from None
        finally:
            process.terminate()
            process.wait()


def wait(process: subprocess.Popen[bytes], url: str, body: dict[str, str] | None) -> None:
    """Ask again and again, until it is answered."""
    data = None if body is None else json.dumps(body).encode()
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, {"content-type": "application/json"})):
                return
        except urllib.error.HTTPError as error:
            if error.code != 503:  # it is loading
                raise SystemExit(f"{url}: {error.code} {error.read().decode()[:300]}") from None
        except OSError:
            pass  # it does not listen yet
        time.sleep(POLL_S)
    raise TimeoutError(f"{url} has not answered")


if __name__ == "__main__":
    main()
