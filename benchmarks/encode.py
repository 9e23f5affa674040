"""Encoding speed, Acclimate against sentence-transformers: the same texts and model, in turn, in one process.

Mixed lengths are docstrings with a tail of long ones; short texts are their summaries. Tokens are counted without
padding, each text as often as it is given. The peer runs as it comes (float32, batches of 32) and, where the CPU
computes in bfloat16, in bf16 too.

    python benchmarks/encode.py [--texts 1500] [--repeats 3] [--model FOLDER]
"""

from __future__ import annotations

import argparse

import torch

from acclimate.models.encoder import Encoder
from common import MINILM, alternate, docstring_pairs, has_bfloat16, machine, peer_folder, table


def main() -> None:
    """Time both sides on mixed and on short texts; print tokens per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default=MINILM, help="a model's folder")
    arguments = parser.parse_args()
    from sentence_transformers import SentenceTransformer

    pairs = docstring_pairs(arguments.texts)
    sets = {
        "mixed lengths": [f"{query}\n{document}" for query, document in pairs],
        "short": [query for query, _ in pairs],
    }
    dtypes = ["float32", "bfloat16"] if has_bfloat16() else ["float32"]
    print(machine())
    rows = []
    for dtype in dtypes:
        ours = Encoder.load(arguments.model, device="cpu", dtype=dtype)
        kind = {"dtype": getattr(torch, dtype)}
        peer = SentenceTransformer(peer_folder(arguments.model), device="cpu", model_kwargs=kind)
        for name, texts in sets.items():
            tokens = int(ours.tokenise(texts, "document").lengths.sum())
            our_s, peer_s = alternate(
                lambda texts=texts, ours=ours: ours.encode(texts),
                lambda texts=texts, peer=peer: peer.encode_document(texts, show_progress_bar=False),
                arguments.repeats,
            )
            rates = [f"{tokens / seconds:,.0f}" for seconds in (our_s, peer_s)]
            rows.append([name, dtype, f"{tokens / len(texts):.0f}", *rates, f"{peer_s / our_s:.2f}"])
    print(table(["texts", "dtype", "tokens per text", "ours, tokens/s", "peer, tokens/s", "ratio"], rows))


if __name__ == "__main__":
    main()
