"""Answers over a BEIR folder, through the service: what is cited, and what is refused.

A run is made of the folder (`prepare`, `index`), which also chooses on its dev split below which score nothing is
answered. Then so many test questions are asked over HTTP, twice: with all documents, and after the documents that are
judged relevant to any of them were deleted, so that nothing that is known to answer them is there. The language model
is the test suite's server, which cites at random, by number and by id, what is there and what is not, and never refuses
by itself: what is refused is refused by the score. A third row takes from each question its own documents only, as the
threshold was chosen: the questions are not asked again, their scores are those of the best document that is left.

    python benchmarks/answers.py PATH/TO/BEIR --out FOLDER [--questions 200] [--split test] [--skip 0]
        [--documents 5000] [--dev 400]

With --documents the corpus is a sample: what is relevant to the questions and to `--dev` dev questions, and others up
to that number; without it, --split train asks training questions that are not in the run's dev split (nothing is
trained). With --skip the first questions of the draw, which another run has asked, are left out. The run is kept
and not made again; so are the replies of a pass that is finished. Shares have 95 % intervals (Clopper and Pearson).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from scipy.stats import binomtest

from common import machine, read_beir, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TOP = 8
PATIENCE_S = 300.0
DEEP = 100
"""Documents whose cosines are looked at: deep enough that others than a question's own are among them."""
TRAIN = 20
"""Training questions of a sample, which nothing is trained on."""


def main() -> None:
    """Make what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--split", choices=["test", "train"], default="test", help="whose questions are asked")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first questions of the draw")
    parser.add_argument("--documents", type=int)
    parser.add_argument("--dev", type=int, default=400, help="dev questions, at most")
    arguments = parser.parse_args()
    data, run = arguments.data, arguments.out / "run"
    corpus, queries, splits = read_beir(data)
    count = arguments.skip + arguments.questions
    asked = drawn(splits["test"], count)[arguments.skip :]
    if arguments.documents is not None:
        data = sampled(data, arguments.out / "data", asked, arguments.documents, arguments.dev)
        corpus = read_beir(data)[0]
    refusal = made(data, run, arguments.dev / max(1, len(splits["train"])))
    judged = splits[arguments.split]
    if arguments.split == "train":
        asked = drawn(judged.keys() - dev_of(run), count)[arguments.skip :]
    relevant = {name for query in asked for name, grade in judged[query].items() if grade > 0}
    started = time.monotonic()
    passes = {"with all documents": [], "their documents deleted": sorted(relevant)}
    found = {}
    for place, (name, gone) in enumerate(passes.items()):
        kept = arguments.out / f"replies-{place}-{arguments.split}-{arguments.skip}-{len(asked)}.json"
        if not kept.exists():
            with served(run) as client:
                delete(client, gone)
                replies = [answered(client, queries[query]) for query in asked]
            kept.write_text(json.dumps(replies))
        found[name] = json.loads(kept.read_text())
    print(f"{arguments.data.name}, {len(corpus):,} documents, {len(asked)} {arguments.split} questions, ", end="")
    print(f"{machine()}; {time.monotonic() - started:.0f} s\n")
    print(f"threshold {refusal['threshold']:.4f}: {refusal['chosen']}; there {refusal['refused']:.1%} of the questions")
    print(f"without their documents are refused, and {refusal['answered']:.1%} of the others are not\n")
    shown = rows(found)
    shown.append(alone_without(found["with all documents"], [judged[query] for query in asked], refusal))
    print(table(("", "answered", "refused", "citations", "of what was not retrieved", "struck"), shown))


def drawn(names: Iterable[str], count: int) -> list[str]:
    """Some of the names, the same at every start."""
    found = sorted(names)
    random.Random(0).shuffle(found)
    return found[:count]


def sampled(data: Path, out: Path, asked: list[str], count: int, dev: int) -> Path:
    """A BEIR folder with fewer documents: the asked questions are its test split, some others its dev split."""
    if out.exists():
        return out
    corpus, queries, splits = read_beir(data)
    others = drawn(splits["train"], dev + TRAIN)
    chosen = {"test": asked, "dev": others[:dev], "train": others[dev:]}
    judged = {query: grades for qrels in splits.values() for query, grades in qrels.items()}
    kept = {name for names in chosen.values() for query in names for name in judged[query]}
    kept |= set(drawn(corpus.keys() - kept, max(0, count - len(kept))))
    (out / "qrels").mkdir(parents=True)
    for split, names in chosen.items():
        rows = [f"{query}\t{name}\t{grade}" for query in names for name, grade in judged[query].items()]
        (out / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    for file, texts, wanted in (
        ("corpus.jsonl", corpus, sorted(kept)),
        ("queries.jsonl", queries, [query for names in chosen.values() for query in names]),
    ):
        (out / file).write_text("".join(json.dumps({"_id": name, "text": texts[name]}) + "\n" for name in wanted))
    return out


def made(data: Path, run: Path, dev_fraction: float) -> dict[str, Any]:
    """A run with an index of the folder's corpus; the choice of its dev split."""
    import acclimate

    acclimate.prepare(str(data), out=run, dev_fraction=dev_fraction)
    acclimate.index(run)  # also what the passes of an earlier call have deleted
    choice: dict[str, Any] = json.loads((run / "fusion.json").read_text())
    refusal: dict[str, Any] = choice["refusal"]
    return refusal


def dev_of(run: Path) -> set[str]:
    """The questions of a run's dev split."""
    from acclimate.data.dataset import load_dataset

    return set(load_dataset(run / "dataset").qrels["dev"])


@contextmanager
def served(run: Path) -> Iterator[httpx.Client]:
    """A client of the service over a run, with the inventing language model behind it."""
    from acclimate.configs import EndpointConfig, RunConfig, ServeConfig
    from acclimate.serve.server import Process
    from tests.chat_server import ChatServer

    with ChatServer(invented) as llm:
        settings = ServeConfig(port=0, results_mb=0)
        config = RunConfig(serve=settings, endpoint=EndpointConfig(llm=llm.url, llm_model="invents"))
        process = Process([str(run)], config)
        thread = threading.Thread(target=process.run)
        thread.start()
        try:
            with httpx.Client(base_url=process.address, timeout=PATIENCE_S) as client:
                while client.get("/readyz").status_code != 200:
                    time.sleep(0.1)
                yield client
        finally:
            process.stop()
            thread.join()


def invented(messages: list[dict[str, str]]) -> str:
    """An answer with six citations, of which some are right by luck."""
    draw = random.Random(messages[-1]["content"])
    forms = ["[{}]", "【{}】", "[{}, {}]", "[PMID:{}]", "[Document {}]", "[{}-{}]"]
    return " ".join(f"A statement {form.format(*(draw.randint(1, 2 * TOP) for _ in range(2)))}." for form in forms)


def delete(client: httpx.Client, names: list[str]) -> None:
    """Remove documents over HTTP."""
    for start in range(0, len(names), 500):
        client.request("DELETE", "/v1/documents", json={"ids": names[start : start + 500]}).raise_for_status()


def answered(client: httpx.Client, question: str) -> dict[str, Any]:
    """The reply to a question, and the ids that a search has for it."""
    body = {"query": question, "top_k": TOP}
    reply: dict[str, Any] = client.post("/v1/answer", json=body).raise_for_status().json()
    hits = client.post("/v1/search", json=body).raise_for_status().json()["hits"]
    dense = client.post("/v1/search", json={**body, "mode": "dense", "top_k": DEEP}).raise_for_status().json()["hits"]
    cosines = [(hit["id"], hit["score"]) for hit in dense]
    return {**reply, "retrieved": [hit["id"] for hit in hits], "cosines": cosines}


def rows(found: Mapping[str, list[dict[str, Any]]]) -> list[list[str]]:
    """A row for each pass."""
    shown = []
    for name, replies in found.items():
        count, answers = len(replies), [reply for reply in replies if reply["answered"]]
        cited = [(one["id"], reply) for reply in answers for one in reply["citations"]]
        wrong = sum(identifier not in reply["retrieved"] for identifier, reply in cited)
        for reply in answers:  # what is left in a text is what is listed
            numbers = {int(number) for number in re.findall(r"\[(\d+)\]", reply["answer"])}
            wrong += numbers != {one["number"] for one in reply["citations"]}
        struck = sum(reply["struck"] for reply in replies)
        share = interval(len(answers), count), interval(count - len(answers), count)
        shown.append([name, *share, str(len(cited)), str(wrong), str(struck)])
    return shown


def alone_without(
    replies: list[dict[str, Any]], judged: list[Mapping[str, int]], refusal: Mapping[str, Any]
) -> list[str]:
    """The row of the questions whose own documents, and no others, are taken away."""
    passed = 0
    for reply, grades in zip(replies, judged, strict=True):
        left = [score for name, score in reply["cosines"] if grades.get(name, 0) <= 0]
        passed += left[0] > refusal["threshold"]
    count = len(replies)
    return ["each without its own only", interval(passed, count), interval(count - passed, count), "", "", ""]


def interval(hits: int, count: int) -> str:
    """A share with its exact 95 % interval."""
    found = binomtest(hits, count).proportion_ci(0.95, "exact")
    return f"{hits / count:.1%} [{found.low:.1%}, {found.high:.1%}]"


if __name__ == "__main__":
    main()
