"""A run small enough to be trained in a second: a random BERT and a dataset of a few made-up words."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from acclimate.data.dataset import Dataset, write_dataset
from acclimate.types import Example, LabelledPair, Qrels, Split

WORDS = [f"w{number}" for number in range(60)]


def write_tiny_bert(folder: Path, initializer_range: float = 0.5) -> Path:
    """A random BERT of two layers with a tokenizer of a few words, as a plain transformers folder."""
    torch.manual_seed(0)
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {word: number + 2 for number, word in enumerate(WORDS)}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=initializer_range,
    )
    folder.mkdir(parents=True, exist_ok=True)
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


def write_tiny_retrieval(folder: Path, queries: int = 40) -> Path:
    """Each query shares a word with its document; documents come with two negatives from the corpus."""
    draw = random.Random(0)
    corpus = {f"d{number}": " ".join([WORDS[number], *draw.choices(WORDS, k=4)]) for number in range(queries)}
    texts = {f"q{number}": " ".join([WORDS[number], *draw.choices(WORDS, k=2)]) for number in range(queries)}
    splits: dict[Split, range] = {
        "train": range(queries * 3 // 5),
        "dev": range(queries * 3 // 5, queries * 4 // 5),
        "test": range(queries * 4 // 5, queries),
    }
    qrels: dict[Split, Qrels] = {split: {f"q{n}": {f"d{n}": 1} for n in numbers} for split, numbers in splits.items()}
    examples = [
        Example(texts[f"q{n}"], corpus[f"d{n}"], tuple(corpus[f"d{(n + step) % queries}"] for step in (1, 5)))
        for n in splits["train"]
    ]
    folder.mkdir(parents=True)
    write_dataset(folder, Dataset("retrieval", corpus, texts, qrels, examples), [])
    return folder


def write_tiny_pairs(folder: Path, pairs: int = 30) -> Path:
    """Sentence pairs labelled 0 to 5 by how many words they share."""
    draw = random.Random(0)
    found = []
    for number in range(pairs):
        first = draw.sample(WORDS, 5)
        shared = number % 6
        second = first[:shared] + draw.sample(WORDS, 5 - shared)
        found.append(LabelledPair(" ".join(first), " ".join(second), float(shared), shared / 5))
    splits: dict[Split, list[LabelledPair]] = {"train": found[:18], "dev": found[18:24], "test": found[24:]}
    examples = [Example(pair.sentence1, pair.sentence2, label=pair.score) for pair in splits["train"]]
    folder.mkdir(parents=True)
    dataset = Dataset("pairs", examples=examples, pairs=splits, info={"label_range": [0.0, 5.0]})
    write_dataset(folder, dataset, [])
    return folder
