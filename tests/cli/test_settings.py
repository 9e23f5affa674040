"""Every command offers exactly the settings that it reads, and refuses the others by name.

What is read is not taken from anybody's word: tiny runs of every command, in every variant that has settings of its
own, with configs that note what they are asked for.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
import time
from collections import defaultdict
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from acclimate.cli.main import COMMANDS, main
from acclimate.cli.options import HEADINGS, every_setting
from acclimate.configs import READS, MineConfig, RunConfig, dump_config, settings_of, used
from acclimate.configs.commands import READS_WHEN
from tests.chat_server import ChatServer
from tests.cli.reads import recorded_reads
from tests.few_references import measure_few
from tests.image_world import tiny_graph, video, write_class_folders
from tests.models import tiny
from tests.tiny_run import WORDS, write_tiny_bert, write_tiny_pairs, write_tiny_retrieval

OF_THE_LOOP = dict.fromkeys(
    ("checkpoint_steps", "max_grad_norm", "weight_decay"),
    "of `HypernetworkConfig`, in the settings that the one loop takes",
)
OTHERWISE = {
    "evaluate": {
        "split_by": "names a column that is kept while data is read; nothing is split here",
        "per_label": "of training pairs: there are none here",
    },
    "generate": {"split_by": "names a column that is kept while pairs are read; nothing is split here"},
    "hypernetwork-tasks": {"split_by": "the same, while a corpus is read"},
    "hypernetwork-train": OF_THE_LOOP,
    "hypernetwork-evaluate": OF_THE_LOOP,
    "adapt": {
        "pool_documents": "of three stages, the dev_documents in a copy of the config",
        "weight_decay": "of images, image_weight_decay in a copy of the config",
    },
    "tune": dict.fromkeys(("format", "int8", "float16"), "of the exports that it makes, in a copy of the config"),
    "index": {"model": "of --images, for the run's report; the vectors are those of the projection"},
    "serve": {"index_at": "of each run's own config.toml: several runs may be served, each with an index"},
    "train": {"reranker": "with remine_steps; the flag is the older spelling of train-reranker, config.toml says it"},
    "merge": {
        "sides": "of the merged models, in a copy of the config",
        "temperature": "of a loss on dev that merging does not look at",
    },
    "refresh": {
        name: "as the run's own config.toml says: a refresh goes on from what was trained"
        for command in ("mine", "train", "evaluate")
        for name in settings_of(command)
    },
}
"""Command -> settings that its code reads and it rightly does not offer -> why."""
HANDED_ON = {"device", "dtype", "limit"}
"""Read by every command that loads models or guard data, whether anything depends on them or not."""
QUICK = ("--epochs", "1", "--batch-size", "8", "--rank", "2", "--eval-steps", "2")
LOSSES = ("cosine-mse", "cosent", "angle", "contrastive", "online-contrastive", "binary")


class World:
    """Tiny models, data and runs, and what is read where."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = str(tiny.as_sentence_transformer(write_tiny_bert(folder / "model")))
        self.other = str(tiny.as_sentence_transformer(write_tiny_bert(folder / "other", initializer_range=0.3)))
        self.reranker = str(tiny.tiny_reranker(folder / "reranker"))
        self.run, self.pairs = folder / "run", folder / "pairs"
        write_tiny_retrieval(self.run / "dataset")
        write_tiny_pairs(self.pairs / "dataset")
        config = RunConfig(model=self.model, device="cpu", dtype="float32")
        self.config = dump_config(config)
        for run in (self.run, self.pairs):
            self.forget(run)
        self.with_reranker = folder / "with-reranker.toml"
        self.with_reranker.write_text(dump_config(replace(config, mine=MineConfig(reranker=self.reranker))))
        draw = random.Random(1)

        def text(words: int) -> str:
            return " ".join(draw.choices(WORDS, k=words))

        rows = [{"q": text(3), "response": text(6)} for _ in range(400)]
        self.data = folder / "data.jsonl"
        self.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.labelled = folder / "labelled.tsv"
        self.labelled.write_text("".join(f"{text(5)}\t{text(5)}\t{number % 5}\n" for number in range(300)))
        self.corpus = folder / "corpus.jsonl"
        self.corpus.write_text("".join(json.dumps({"_id": f"x{n}", "text": text(6)}) + "\n" for n in range(20)))
        self.texts = folder / "texts.txt"
        self.texts.write_text("".join(text(6) + "\n" for _ in range(60)))
        self.lexicon = folder / "lexicon.txt"
        self.lexicon.write_text("".join(f"{word}\n" for word in WORDS[:20]))
        self.topics = folder / "topics.tsv"
        self.topics.write_text("text\ttopic\n" + "".join(f"{text(6)}\t{number % 3}\n" for number in range(30)))
        self.reads: dict[str, set[str]] = defaultdict(set)

    def forget(self, run: Path) -> None:
        """Let a run remember nothing of what earlier stages were told, so that each variant stands by itself."""
        (run / "config.toml").write_text(self.config)

    def do(self, *arguments: object, mode: str = "", refused: bool = False) -> None:
        """Run a command, and note what it reads, also under the name of what it then does."""
        with recorded_reads() as reads, pytest.raises(SystemExit) if refused else nullcontext():
            main([str(word) for word in arguments])
        self.reads[str(arguments[0])] |= reads
        if mode:
            self.reads[mode] |= reads


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"))
    base = ("--model", made.model, "--device", "cpu", "--dtype", "float32")
    _pairs(made, base)
    _prepare_and_mine(made, base)
    _train(made, base)
    _evaluate(made, base)
    _merge(made)
    _export(made)
    made.do("search", made.run, "w1", mode="search without --rerank")
    made.do("similarity", made.run, "w1", "w2")
    for adapter in ((), ("--adapter", made.run)):
        made.do("encode", made.texts, "--out", made.folder / "vectors.npy", "--replace", *base, *adapter)
    columns = ("--anchor-column", "q", "--positive-column", "response")
    adapt = ("adapt", made.data, "--out", made.folder / "adapted", *base, *QUICK, *columns)
    made.do(*adapt, "--sign-flips", "100", "--recipe", "three-stage")
    for stage in ("pairs", "prepare", "mine", "train", "evaluate"):
        made.reads["adapt"] |= made.reads[stage]
    _images(made, base)
    _index(made)
    _learn(made)
    _instant(made, base)
    return made


def _learn(world: World) -> None:
    """Let searchers mark, and refresh a run's adapter of queries."""
    world.forget(world.run)
    world.do("train", world.run, *QUICK, "--sides", "query")
    rows = [
        {"query": f"{WORDS[n]} {WORDS[n // 2]} w3", "id": f"d{n % 40}", "mark": "relevant", "user": f"u{n % 6}"}
        for n in range(60)
    ]
    marks = world.folder / "marks.jsonl"
    marks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    world.do("feedback", world.run, "--import", marks)
    few = ("--refresh-steps", "2", "--least-later", "4", "--least-users", "2", "--user-share", "0.25")
    others = ("--guard", world.pairs / "dataset", "--retain-data", world.texts, "--sign-flips", "100")
    world.do("refresh", world.run, *few, *others)


def _images(world: World, base: tuple[str, ...]) -> None:
    """Images in a run of their own; dev images, so that the settings of their evaluation are read."""
    images = write_class_folders(world.folder / "pictures", classes=6, images=10)
    (images / "0" / "clip.mp4").write_bytes(video([60, 120, 180]))
    run, tower = world.folder / "of-pictures", tiny_graph(world.folder / "tower")
    quick = ("--image-epochs", "1", "--image-batch-size", "16", "--sign-flips", "100")
    world.do("adapt", images, "--out", run, *base, "--image-model", tower, *quick, mode="adapt on images")
    for query in ("0.jpg", "clip.mp4"):
        world.do("search", run, "--image", images / "0" / query, mode="search by a picture")
    world.do("index", run, images, "--images", mode="index RUN --images")


def _index(world: World) -> None:
    world.do("index", world.run)
    world.do("index", world.run, world.corpus, "--chunk-tokens", "20", "--chunk-overlap", "4")
    for flags in (("--info",), ("--rebuild",), ("--export", world.folder / "exported.jsonl")):
        world.do("index", world.run, *flags, mode="index RUN --info")
    for flag in ("--verify", "--reencode"):
        world.do("index", world.run, flag, mode="index RUN --reencode")
    nobody = ("--adopt", "postgresql://127.0.0.1:1/nobody?table=texts", "--text-field", "t", "--vector-field", "v")
    world.do("index", world.run, *nobody, mode="index RUN --adopt", refused=True)
    world.do("search", world.run, "w1", mode="search without --rerank")
    world.do("search", world.run, "w1", "--rerank", "10", "--reranker", world.reranker)
    world.do("index", world.folder / "second")
    fused = ("--experts", world.folder / "second", "--adapter", "fuse", "--rerank", "10", "--reranker", world.reranker)
    world.do("search", world.run, "w1", *fused, mode="search --experts")
    with ChatServer() as llm:
        asked = ("answer", world.run, "w1", "--llm", llm.url, "--llm-model", "m")
        world.do(*asked, mode="answer without --rerank")
        world.do(*asked, "--rerank", "10", "--reranker", world.reranker)
    world.do("index", world.run)
    world.do("evaluate", world.run, "--index", "--sign-flips", "100", mode="evaluate RUN --index")
    _serve(world)


def _serve(world: World) -> None:
    """Serve the run, with what asks for every setting, until a signal ends it."""
    # Below the ports that the system gives away: those go to another worker's service, too, which then answers here.
    port = random.Random(os.getpid()).randrange(20_000, 30_000)
    base, ended = f"http://127.0.0.1:{port}", threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=base, timeout=120) as client:
            for _ in range(6000):
                with suppress(httpx.HTTPError):
                    if client.get("/readyz").status_code == 200:
                        break
                time.sleep(0.02)
            client.post("/v1/embeddings", json={"input": "w1", "model": "run", "input_type": "query"})
            client.post("/v1/embeddings", json={"input": [[1]], "model": "run@query"})
            client.put("/v1/documents", json={"documents": [{"id": "x", "text": "w1 w2"}]})
            client.post("/v1/answer", json={"query": "w1"})
            client.post("/v1/search", json={"query": "w1", "rerank": 10})
            time.sleep(0.3)  # what changes on disk is looked for
        if not ended.is_set():  # nobody else handles the signal
            os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    with ChatServer() as llm:
        asked = ("--llm", llm.url, "--llm-model", "m", "--feedback")
        try:
            world.do("serve", world.run, "--port", port, "--reranker", world.reranker, "--poll-s", "0.1", *asked)
        finally:
            ended.set()  # a signal that came later would end the tests
    asking.join()


def _pairs(world: World, base: tuple[str, ...]) -> None:
    """Pairs out of documents, by all that can make some."""
    draw = random.Random(2)
    docs, real, experts = (world.folder / name for name in ("docs.jsonl", "real.jsonl", "experts.csv"))
    rows = [{"title": f"w1 w{number}", "text": " ".join(draw.choices(WORDS, k=30))} for number in range(60)]
    docs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    real.write_text('{"query": "w1 w2"}\n')
    command = ("pairs", docs, "--out", world.folder / "made.jsonl", *base)
    world.do(*command, "--annotate", experts)
    with ChatServer(lambda _: "keyword: w1 w2\nyes") as server:
        asked = ("--llm", server.url, "--llm-model", "any", "--llm-prices", "1,2", "--judge", "--asked-passages", "5")
        others = ("--pair-sources", "title,cluster", "--queries", real, "--annotated", experts)
        world.do(*command, *asked, *others)


def _instant(world: World, base: tuple[str, ...]) -> None:
    """A library over random words has no definition but those of length, theme and first word."""
    library, network = world.folder / "tasks", world.folder / "hyper"
    columns = ("--anchor-column", "q", "--positive-column", "response")
    with ChatServer(lambda _: "1. The text is of one length with it.") as server:
        asked = ("--llm", server.url, "--llm-model", "any")
        world.do("hypernetwork-tasks", world.data, "--out", world.folder / "reworded", *columns, *asked)
    world.do("hypernetwork-tasks", world.data, "--out", library, *columns)
    small = ("--steps", "2", "--shared-steps", "2", "--shared-rank", "2", "--own-rank", "2")
    world.do("hypernetwork-train", library, "--out", network, *small, *base)
    with pytest.MonkeyPatch.context() as patch:
        measure_few(patch)
        world.do("hypernetwork-evaluate", network, "--tasks", library, "--out", world.folder / "measured", *base)
    asked = ("--describe", "the same word", "--pairs", world.data, *columns, "--corpus", world.texts)
    out = world.folder / "generated"  # after so few steps the base is as good, and nothing is written, when all is read
    world.do("generate", "--hypernetwork", network, "--out", out, *asked, *base, refused=True)


def _prepare_and_mine(world: World, base: tuple[str, ...]) -> None:
    model, columns = base[:2], ("--anchor-column", "q", "--positive-column", "response")
    world.do("prepare", world.data, "--out", world.folder / "a", "--corpus", world.corpus, *columns, *model)
    labelled = ("--columns", "sentence1,sentence2,label", "--per-label", "20")
    world.do("prepare", world.labelled, "--out", world.folder / "b", *labelled, *model)
    world.do("mine", world.run, "--reranker", world.reranker)


def _train(world: World, base: tuple[str, ...]) -> None:
    variants: tuple[tuple[object, ...], ...] = (
        ("--temperature-kind", "learned", "--hardness-strength", "2", "--matryoshka-dims", "8"),
        ("--temperature-kind", "adaptive", "--lexicon", world.lexicon),
        ("--guide", world.model),
        ("--remine-steps", "2", "--config", world.with_reranker),
        ("--retain-data", world.texts),
        ("--retain-data", world.texts, "--guard", world.pairs / "dataset", "--limit", "20"),
        ("--loss", "triplet"),
        ("--loss", "margin-mse"),
        ("--loss", "embedding-distillation", "--embedding-teacher", world.model),
        ("--full",),
        ("--sides", "query"),
        ("--gradient-checkpointing",),
    )
    for variant in variants:
        world.forget(world.run)
        world.do("train", world.run, *QUICK, *variant)
    adaptive = ("--temperature-kind", "adaptive")
    for others in (("--background", world.texts), ("--guard", world.run / "dataset")):
        # Words drawn evenly have no terms: that is found out when all is read.
        world.do("train", world.folder / "a", *base, *QUICK, *adaptive, *others, refused=True)
    for loss in LOSSES:
        world.do("train", world.pairs, *QUICK, "--loss", loss)
    quick = ("--epochs", "1", "--batch-size", "8", "--group-size", "3", "--eval-steps", "2")
    for loss in ("kl", "listwise"):
        world.do("train-reranker", world.run, world.reranker, *quick, "--loss", loss)
    world.forget(world.run)
    world.do("train", world.run, *QUICK)


def _evaluate(world: World, base: tuple[str, ...]) -> None:
    few = ("--sign-flips", "100")
    domain = ("--topics", world.topics, "--background", world.texts)
    world.do("evaluate", world.run, *few, *domain, mode="evaluate RUN")
    world.do("evaluate", world.run, *few, "--lexicon", world.lexicon, mode="evaluate RUN")
    guarded = ("--guard", world.pairs / "dataset")
    world.do("evaluate", world.run, *few, *domain, *guarded, mode="evaluate RUN with guard data")
    world.do("evaluate", world.run, "--model", world.other, *base[2:], mode="evaluate of one model on RUN")
    columns = ("--anchor-column", "q", "--positive-column", "response")
    world.do("evaluate", world.data, *base, *columns, mode="evaluate of one model on DATA")
    labelled = ("--columns", "sentence1,sentence2,label")
    world.do("evaluate", world.labelled, *base, *labelled, mode="evaluate of one model on DATA")
    world.do("evaluate-reranker", world.run, world.run, *few)
    world.do("compare", world.run, world.run, *few)
    second = world.folder / "second"
    shutil.copytree(world.run, second, symlinks=True)
    beside = ("--data", world.run / "dataset", "--multi", world.run, "--spanning", "4")
    world.do("route", world.run, second, *few, *beside)
    name = ("--reranker", world.run, "--device", "cpu")
    world.do("rerank", "w1", "--texts", world.texts, *name, mode="rerank QUERY --texts FILE")
    ranked, data = world.run / "reranking" / "runs" / "retrieved.trec", world.run / "dataset"
    files = ("--candidates", ranked, "--queries", data / "queries.jsonl", "--corpus", data / "corpus.jsonl")
    world.do("rerank", *files, "--out", world.folder / "again.trec", *name)


def _merge(world: World) -> None:
    out, cpu = (world.folder / f"merged-{number}" for number in range(9)), ("--device", "cpu", "--dtype", "float32")
    world.do("merge", world.run, "--out", next(out), "--model", world.model, mode="merge of one adapter")
    for method in ("ties", "greedy-soup"):
        world.do("merge", world.run, world.run, "--out", next(out), "--method", method, *cpu)
    guarded = ("--guard", world.pairs / "dataset")
    world.do("merge", world.run, "--out", next(out), "--method", "interpolate", *guarded, *cpu)
    world.do("merge", world.run, world.run, "--out", next(out), "--merged-rank", "2", "--folded", *cpu)
    world.do("merge", world.model, world.model, "--out", next(out), "--pooling", "mean", *cpu)


def _export(world: World) -> None:
    out, model = world.folder / "exported", ("--model", world.model)
    world.do("export", world.run, "--out", out, *model, mode="export in float32")
    # The graph of so small a model is larger than its weights: the gate has refused it when all is read.
    world.do("export", world.run, "--out", out, *model, "--format", "onnx", "--int8", refused=True)
    reranker, forced = world.run / "reranker", ("--int8", "--force", "--sign-flips", "100")
    world.do("export", reranker, "--out", world.folder / "exported-reranker", "--format", "onnx", *forced)
    world.do("vectors", world.run, *model, "--device", "cpu", "--dtype", "float32", "--sign-flips", "100")
    world.do("tune", world.run, *model, "--tune-seconds", "0.001", "--sign-flips", "100")


@pytest.mark.slow
@pytest.mark.parametrize("command", READS)
def test_a_command_offers_what_it_reads(world: World, command: str) -> None:
    offered = set(settings_of(command))
    assert world.reads[command] - offered - set(OTHERWISE.get(command, ())) == set(), "read, and not offered"
    assert offered - world.reads[command] == set(), "offered, and never read"


@pytest.mark.slow
@pytest.mark.parametrize("mode", READS_WHEN)
def test_so_does_each_of_the_things_that_it_may_do(world: World, mode: str) -> None:
    offered = set(settings_of(mode))
    allowed = offered | set(OTHERWISE.get(mode.split()[0], ())) | HANDED_ON
    assert world.reads[mode] <= allowed, "read, and not offered"


def test_every_command_is_in_the_table_and_shows_ten_of_its_settings() -> None:
    assert set(READS) == set(COMMANDS)
    for name, command in COMMANDS.items():
        assert set(command.first) <= set(settings_of(name)), name
        assert command.shows_all or len(command.first) == 10, name
        assert command.example.startswith(f"acclimate {name}"), name


def test_every_setting_has_a_heading_and_a_reader() -> None:
    sections = {setting.section for setting in every_setting().values()}
    headed = {name for names in HEADINGS.values() for name in names}
    assert headed <= set(every_setting()) | sections
    assert [s.name for s in every_setting().values() if s.name not in headed and s.section not in headed] == []
    assert set(every_setting()) == {name for command in READS for name in settings_of(command)} | {"reranker"}


def test_what_is_written_down_is_what_is_read() -> None:
    """`settings.json` of a reranker: with no word on the sections that are for embedding models."""
    written = used(RunConfig(), "train-reranker")
    names = {name for value in written.values() if isinstance(value, dict) for name in value} | {
        name for name, value in written.items() if not isinstance(value, dict)
    }
    assert names == set(settings_of("train-reranker"))
    assert "epochs" not in written["train"] and written["rerank"]["rerank_epochs"] == 2.0
