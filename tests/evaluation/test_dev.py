"""The pool that dev queries are ranked against."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from acclimate.evaluation.dev import dev_set
from acclimate.models.encoder import Encoder
from acclimate.types import Qrels
from tests.tiny_run import write_tiny_bert


def test_the_pool_is_never_made_of_answers_only(tmp_path: Path) -> None:
    encoder = Encoder.load(str(write_tiny_bert(tmp_path / "tiny")), pooling="mean", device="cpu", dtype="float32")
    corpus = {f"d{number}": f"w{number} w{number + 1}" for number in range(30)}
    queries = {f"q{number}": f"w{number}" for number in range(4)}
    qrels: Qrels = {f"q{number}": {f"d{2 * number}": 1, f"d{2 * number + 1}": 1, "d29": 0} for number in range(4)}
    corpus_MD = encoder.encode(list(corpus.values()), role="document")
    relevant = {f"d{number}" for number in range(8)}
    for asked, size in ((1, 16), (20, 20), (100, 30)):
        dev = dev_set(encoder, corpus, corpus_MD, queries, qrels, asked, seed=0)
        assert len(dev.corpus) == size and relevant < set(dev.corpus)
        assert set(dev.queries) == set(queries)
        rows = [list(corpus).index(document) for document in dev.corpus]
        assert np.array_equal(dev.base_vectors, corpus_MD[rows])
