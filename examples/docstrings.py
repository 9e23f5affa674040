"""Real search data that every machine with Python has: the docstrings of the standard library and installed packages.

The query is a docstring's summary, the document the rest of it, without the names of the object it belongs to: who
searches for "remove the whitespace at both ends" does not know yet that the answer is called `strip`.

    python examples/docstrings.py --out runs/demo-pairs.jsonl

The default limit keeps `make demo` under five minutes on two cores. The arithmetic is below.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import sys
import sysconfig
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

DEFAULT_LIMIT = 2000
MAX_DOCUMENT_WORDS = 40
"""Where the five minutes go, at 1,700 trained and 5,000 encoded tokens a second (MiniLM, two cores of a laptop):
2,000 pairs have about 17 + 58 tokens each. One pass over the 1,700 training pairs, each with one mined negative, is
226,000 tokens or 133 s; mining and the final evaluation encode 150,000 tokens each, 30 s apiece; three evaluations on
500 dev documents take 20 s; reading sources, four starts of Python, the report and the searches 50 s. In all 263 s."""

MIN_SUMMARY_WORDS, MAX_SUMMARY_WORDS = 4, 30
MIN_DOCUMENT_WORDS = 8
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "testing", "_vendor", "idlelib", "lib2to3"}

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Pair(NamedTuple):
    """A docstring cut in two, and the module that it is from."""

    query: str
    response: str
    module: str


def main() -> None:
    """Write the pairs as JSONL; half from the standard library, the rest from packages.

    A line has `query` and `response`; of named packages also `module`.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo-pairs.jsonl"), help="JSONL file to write")
    parser.add_argument("--limit", type=int, default=DEFAULT_LIMIT, help=f"pairs to write (default {DEFAULT_LIMIT})")
    parser.add_argument("--packages", nargs="+", help="take nothing but these; stdlib is the standard library")
    arguments = parser.parse_args()

    library = Path(sysconfig.get_path("stdlib"))
    packages = Path(sysconfig.get_path("purelib"))
    seen: set[str] = set()
    if arguments.packages:
        roots = [library if name == "stdlib" else packages / name for name in arguments.packages]
        if missing := [root.name for root in roots if not root.is_dir()]:
            parser.error(f"not installed as a folder of Python files: {', '.join(missing)}")
        pairs = list(islice(unique(chain.from_iterable(map(docstrings, roots)), seen), arguments.limit))
    else:
        pairs = list(islice(unique(docstrings(library), seen), arguments.limit // 2))
        pairs += islice(unique(docstrings(packages), seen), arguments.limit - len(pairs))
    written = Pair._fields if arguments.packages else ("query", "response")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", encoding="utf-8") as stream:
        for pair in pairs:
            row = {name: getattr(pair, name) for name in written}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{len(pairs)} docstrings -> {arguments.out}", file=sys.stderr)


def docstrings(root: Path) -> Iterator[Pair]:
    """Every usable docstring below a folder, in an order that is mixed but always the same."""
    files = [path.relative_to(root) for path in root.rglob("*.py")]
    kept = [path for path in files if not any(is_skipped(part) for part in path.parts)]
    for path in sorted(kept, key=lambda path: hashlib.sha256(path.as_posix().encode()).digest()):
        try:
            tree = ast.parse((root / path).read_bytes())
        except (SyntaxError, ValueError, RecursionError):
            continue  # a template, or source of another Python
        module = f"{root.name}.{path.parts[0].removesuffix('.py')}"
        for names, node in documented(tree, ()):
            if halves := split_docstring(ast.get_docstring(node) or "", names):
                yield Pair(*halves, module)


def is_skipped(part: str) -> bool:
    """Whether a folder or file of this name holds tests, copies of other packages, or a package's own packages."""
    return part in SKIPPED_FOLDERS or part.startswith(("test_", "lib-"))


def documented(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Documented]]:
    """The functions, classes and methods below a node, with their own name and those of the classes around them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Documented):
            yield (*names, child.name), child
            yield from documented(child, (*names, child.name))


def split_docstring(text: str, names: tuple[str, ...]) -> tuple[str, str] | None:
    """A dedented docstring as (summary, rest without `names`), or None where one of them says too little."""
    summary, _, rest = text.partition("\n\n")
    summary = " ".join(summary.split())
    nameless = re.sub(rf"\b(?:{'|'.join(map(re.escape, names))})\b", "", rest)
    words = re.sub(r"([-=~^*])\1{2,}", " ", nameless).split()  # no underlines of headings
    if not MIN_SUMMARY_WORDS <= len(summary.split()) <= MAX_SUMMARY_WORDS or len(words) < MIN_DOCUMENT_WORDS:
        return None
    return summary, " ".join(words[:MAX_DOCUMENT_WORDS])


def unique(pairs: Iterator[Pair], seen: set[str]) -> Iterator[Pair]:
    """The pairs neither of whose texts has been `seen`; inherited methods repeat their docstrings."""
    for pair in pairs:
        if pair.query not in seen and pair.response not in seen:
            seen.update((pair.query, pair.response))
            yield pair


if __name__ == "__main__":
    main()
