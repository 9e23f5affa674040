"""A small world for the stages that measure: a tiny random model, adapters on it, and data written as datasets."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from acclimate.configs import EvaluateConfig, RunConfig
from acclimate.core.linears import linear_names
from acclimate.data.dataset import Dataset, write_dataset
from acclimate.models.adapter import Adapter
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.types import LabelledPair, Sides
from tests.models.tiny import as_sentence_transformer, tiny_bert

WORDS = (
    "wheat",
    "rice",
    "maize",
    "barley",
    "water",
    "soil",
    "field",
    "seed",
    "plough",
    "harvest",
    "rain",
    "sun",
    "leaf",
)
RANK = 2


def tiny_embedder(folder: Path, seed: int = 0) -> Path:
    """A tiny random model that says itself how it wants to be used."""
    return as_sentence_transformer(tiny_bert(folder, seed=seed))


def config_for(model: Path, **evaluate: object) -> RunConfig:
    return RunConfig(
        model=str(model),
        device="cpu",
        dtype="float32",
        evaluate=EvaluateConfig(sign_flips=200, **evaluate),  # type: ignore[arg-type]
    )


def write_retrieval(run: Path) -> Dataset:
    """Forty documents; the queries are the texts of twelve of them, so that any model that reads finds them."""
    generator = random.Random(1)
    corpus = {f"d{number:02}": " ".join(generator.choices(WORDS, k=6)) for number in range(40)}
    queries = {f"q{number:02}": corpus[f"d{number:02}"] for number in range(12)}
    qrels = {f"q{number:02}": {f"d{number:02}": 1} for number in range(12)}
    qrels["q00"]["d39"] = 2
    qrels["unjudged"] = {"d01": 0}
    dataset = Dataset("retrieval", corpus, queries | {"unjudged": "rain"}, {"train": {}, "dev": {}, "test": qrels})
    return _written(run, dataset)


def write_pairs(run: Path) -> Dataset:
    """Labels from 0 to 4: how many words of four the sentences share."""
    generator = random.Random(2)
    pairs = []
    for number in range(60):
        words, shared = generator.sample(WORDS, 8), number % 5
        other = words[:shared] + words[4 : 8 - shared]
        pairs.append(LabelledPair(" ".join(words[:4]), " ".join(other), float(shared), shared / 4))
    return _written(run, Dataset("pairs", pairs={"train": [], "test": pairs}, info={"label_range": [0, 4]}))


def write_adapter(folder: Path, model: Path, *, strength: float, sides: Sides = "both") -> None:
    """An adapter with random matrices; `strength` 0 changes nothing, 1 makes the model another one."""
    encoder = Encoder.load(str(model), device="cpu", dtype="float32")
    generator = torch.Generator().manual_seed(0)
    linears = dict(encoder.model.named_modules())
    modules = {}
    for name in linear_names(encoder.model):
        linear = linears[name]
        a = torch.randn(RANK, linear.in_features, generator=generator)
        b = strength * torch.randn(linear.out_features, RANK, generator=generator)
        modules[name] = (a, b)
    source = encoder.source
    adapter = Adapter(
        base_id=source.id,
        base_sha256=source.sha256,
        rank=RANK,
        alpha=float(RANK),
        modules=modules,
        use=encoder.use,
        normalise=source.files.normalise,
        sides=sides,
        metrics={},
    )
    folder.mkdir(parents=True)
    save_adapter(folder, adapter, encoder.source)


def _written(run: Path, dataset: Dataset) -> Dataset:
    folder = run / "dataset"
    folder.mkdir(parents=True)
    write_dataset(folder, dataset, [])
    return dataset
