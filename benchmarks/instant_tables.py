"""All tables about instant adapters, in parts that are kept: a second start goes on, `--table` prints what there is.

    python benchmarks/instant_tables.py PATH/TO/DATA --out FOLDER [--parts NAME …] [--seeds 0 1 2]
    python benchmarks/instant_tables.py PATH/TO/DATA --out FOLDER --table

PATH/TO/DATA holds nl2bash_en, banking77_en and bioasq_en to train on, and scifact_en, tldr_zh and agrieval_zh, which
never are. Trained on are also docstrings: of the standard library, and of packages under BSD and Apache licences that
Acclimate needs anyway. Parts, for each seed:

    synthetic       `instant.py`: the family of synthetic tasks, query side; Drag-and-Drop with 4,000 steps
    synthetic-both  the same, both sides, core modulation
    tasks           the library: definitions of relevance, domains, what is held out
    train           core modulation, Text-to-LoRA, Drag-and-Drop, and the rivals trained as long with as many
                    parameters: the multi-task adapter, the description before every query (maps on query vectors)
    evaluate        all of these on what is held out, with own adapters, mixtures, choices by a user's pairs and the
                    curve of quality against seconds
    encoder         generators and rivals as LoRA on the encoder's last two blocks, for queries, on the same tasks
    both-sides      the same for queries and documents
    shapes          (once) weights for the shapes of Qwen3-Embedding-0.6B: `instant_shapes.py`

Every command is one that a user types, and goes on by itself after an interruption.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.data.task_library import KNOWN_ATTRIBUTES
from common import RESAMPLES, machine, processor, table

TRAINED_ON = ("nl2bash_en", "banking77_en", "bioasq_en")
DOCSTRINGS = {
    "standard_library": ("stdlib",),
    "science": ("numpy", "scipy", "sklearn"),
    "learning": ("torch", "transformers", "peft"),
}
"""Source -> packages."""
UNSEEN = ("scifact_en", "tldr_zh", "agrieval_zh")
DOMAINS = 24
LIMIT = 2000
GENERATORS = ("core-modulation", "text-to-lora", "drag-and-drop")
RIVALS = ("multi-task", "instruction-prefix")
STEPS, ENCODER_STEPS = 1500, 400
"""The same for all: maps on query vectors, LoRA through the encoder."""
QUICKER = 100
WIDE = ("--shared-rank", "64")
"""Rank of the rivals: that of core modulation's shared matrices, with the further directions."""
MAIN = "core-modulation, description + 8 pairs"
GOAL = 0.02
CONTROLS = ("core-modulation, mean", "core-modulation, shuffled")
AGAINST = ("multi-task", *CONTROLS, "base", "equal-steps", "instruction-prefix")
POOLED = "unseen combinations and definitions"
GROUPS = {
    "known-definition": ("known-definition",),
    "new-definition": ("new-definition",),
    POOLED: KNOWN_ATTRIBUTES,
    "new-attribute": ("new-attribute",),
}
"""What is shown -> the groups of tasks."""
HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run what is missing of the parts, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=LIMIT, help="texts of each source")
    parser.add_argument("--max-tokens", type=int, help="cut texts")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the steps, no references: does it run?")
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        for seed in arguments.seeds:
            for part in arguments.parts:
                PARTS[part](arguments, seed)
    show(arguments.out, arguments.seeds)


def typed(*words: object) -> None:
    """Run a command of ours."""
    _run([sys.executable, "-m", "acclimate", *map(str, words)])


def beside(script: str, *words: object) -> None:
    """Run another benchmark."""
    _run([sys.executable, str(HERE / script), *map(str, words)])


def _run(command: Sequence[str]) -> None:
    print(" ".join(command[1:]), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=sys.stderr)


def of_seed(arguments: argparse.Namespace, seed: int) -> Path:
    """The folder of a seed."""
    folder: Path = arguments.out / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def synthetic(arguments: argparse.Namespace, seed: int) -> None:
    """The synthetic family, query side."""
    beside("instant.py", "--out", arguments.out / "synthetic", "--seeds", seed, "--steps", 4000)


def synthetic_both(arguments: argparse.Namespace, seed: int) -> None:
    """The synthetic family, both sides."""
    arms = ("--arms", "core-modulation", "--sides", "both")
    beside("instant.py", "--out", arguments.out / "synthetic-both", "--seeds", seed, "--steps", 4000, *arms)


def tasks(arguments: argparse.Namespace, seed: int) -> None:
    """The library."""
    sources = [arguments.data / name for name in TRAINED_ON]
    for name, packages in DOCSTRINGS.items():
        sources.append(arguments.out / f"{name}.jsonl")
        if not sources[-1].exists():
            script = HERE.parent / "examples" / "docstrings.py"
            words = ("--packages", *packages, "--limit", "6000", "--out", str(sources[-1]))
            _run([sys.executable, str(script), *words])
    unseen = [word for name in UNSEEN for word in ("--held-out", arguments.data / name)]
    out = of_seed(arguments, seed) / "tasks"
    sizes = ("--limit", arguments.limit, "--domains", DOMAINS, "--seed", seed)
    typed("hypernetwork-tasks", *sources, *unseen, "--out", out, *sizes)


def trained(
    arguments: argparse.Namespace, seed: int, generator: str, steps: int, *further: object, within: str = ""
) -> Path:
    """One network; the folder is called as the generator."""
    folder = of_seed(arguments, seed)
    out = folder / within / ("equal-steps" if generator == "multi-task" else generator)
    out.parent.mkdir(exist_ok=True)
    cut = ("--max-tokens", arguments.max_tokens) if arguments.max_tokens else ()
    taken = max(1, steps // QUICKER) if arguments.quick else steps
    words = ("--generator", generator, "--steps", taken, "--seed", seed, *cut, *further)
    typed("hypernetwork-train", folder / "tasks", "--out", out, *words)
    return out


def train(arguments: argparse.Namespace, seed: int) -> list[Path]:
    """All generators, and the rivals."""
    made = [trained(arguments, seed, generator, STEPS) for generator in GENERATORS]
    return made + [trained(arguments, seed, rival, STEPS, *WIDE) for rival in RIVALS]


def evaluate(arguments: argparse.Namespace, seed: int) -> None:
    """Everything that is held out."""
    folder = of_seed(arguments, seed)
    few = ("--no-references",) if arguments.quick else ()
    words = ("--tasks", folder / "tasks", "--out", folder / "measured", "--seed", seed, *few)
    typed("hypernetwork-evaluate", *train(arguments, seed), *words)


def through_encoder(arguments: argparse.Namespace, seed: int, within: str = "lora", sides: str = "query") -> None:
    """LoRA on the last two blocks."""
    folder, settings = of_seed(arguments, seed), ("--through", "encoder", "--sides", sides)
    networks = (*GENERATORS, *RIVALS)
    made = [trained(arguments, seed, name, ENCODER_STEPS, *settings, within=within) for name in networks]
    words = ("--tasks", folder / "tasks", "--out", folder / f"measured-{within}", "--seed", seed, "--no-references")
    typed("hypernetwork-evaluate", *made, *words)


def both_sides(arguments: argparse.Namespace, seed: int) -> None:
    """The same for queries and documents."""
    through_encoder(arguments, seed, "lora-both", "both")


def shapes(arguments: argparse.Namespace, seed: int) -> None:
    """Weights for a large base; nothing of it depends on the seed."""
    if seed == arguments.seeds[0]:
        beside("instant_shapes.py", "--out", arguments.out / "shapes")


PARTS: dict[str, Callable[[argparse.Namespace, int], Any]] = {
    "synthetic": synthetic,
    "synthetic-both": synthetic_both,
    "tasks": tasks,
    "train": train,
    "evaluate": evaluate,
    "encoder": through_encoder,
    "both-sides": both_sides,
    "shapes": shapes,
}


def show(out: Path, seeds: Sequence[int]) -> None:
    """Print the tables of what there is."""
    print(f"{processor()}; {machine()}\n")
    for name in ("synthetic", "synthetic-both"):
        if (out / name).is_dir():
            sides = ("--sides", "both", "--arms", "core-modulation") if name == "synthetic-both" else ()
            print(f"{name}\n", flush=True)
            command = [sys.executable, str(HERE / "instant.py"), "--out", str(out / name), "--steps", "4000", "--table"]
            subprocess.run([*command, *sides, "--seeds", *map(str, seeds)], check=True)
    for name in ("measured", "measured-lora", "measured-lora-both"):
        reports = [(seed, report) for seed in seeds for report in _reports(out / f"seed-{seed}" / name)]
        if reports:
            rows = {seed: _per_task(out / f"seed-{seed}" / name) for seed, _ in reports}
            print(f"\n{name}: seeds {', '.join(str(seed) for seed, _ in reports)}\n")
            _arms(reports)
            draw(_drawn(reports), out / f"{name}.svg")
            _gains(rows)
            _choices(reports)
            _chart(reports)
            _curve(reports)


def _reports(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / "report.json"
    if path.exists():
        yield json.loads(path.read_text())


def _per_task(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "per_task.jsonl").read_text().splitlines()]


Reports = Sequence[tuple[int, dict[str, Any]]]


def _arms(reports: Reports) -> None:
    """NDCG@10 of every arm by group of tasks: the mean over seeds, and from where to where."""
    groups = list(dict.fromkeys(group for _, report in reports for group in report["arms"]))
    arms = list(dict.fromkeys(arm for _, report in reports for arm in report["arms"][groups[0]]))
    rows = []
    for arm in arms:
        cells = [arm]
        for group in groups:
            found = [found["ndcg"] for _, report in reports if (found := report["arms"].get(group, {}).get(arm))]
            cells.append(_spread(found))
        rows.append(cells)
    counts = {group: ", ".join(str(report["groups"].get(group, 0)) for _, report in reports) for group in groups}
    print(table(["NDCG@10", *(f"{group} ({counts[group]} tasks)" for group in groups)], rows) + "\n")


DRAWN = {
    "base": "base",
    "one adapter for all tasks": "equal-steps",
    "description before every query": "instruction-prefix",
    "core modulation: another task's condition": CONTROLS[1],
    "core modulation: mean condition": CONTROLS[0],
    "Drag-and-Drop": "drag-and-drop, description + 8 pairs",
    "Text-to-LoRA": "text-to-lora, description + 8 pairs",
    "core modulation": MAIN,
}
"""What the picture says -> the arm."""


def _drawn(reports: Reports) -> dict[str, list[float]]:
    """Words of the picture -> NDCG@10 on unseen definitions with known attributes, of each seed."""
    arms = [report["arms"].get("known attributes", {}) for _, report in reports]
    found = {words: [of_seed[arm]["ndcg"] for of_seed in arms if arm in of_seed] for words, arm in DRAWN.items()}
    return {words: values for words, values in found.items() if values}


def draw(values: Mapping[str, Sequence[float]], file: Path) -> None:
    """Draw a bar for each, the mean over seeds, and a line from the lowest to the highest seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 0.42 * len(values) + 0.9), layout="constrained")
    means = [float(np.mean(of_seeds)) for of_seeds in values.values()]
    ends = [[mean - min(v), max(v) - mean] for mean, v in zip(means, values.values(), strict=True)]
    colours = [
        "#0f766e" if words in ("core modulation", "Text-to-LoRA", "Drag-and-Drop") else "#9a958a" for words in values
    ]
    bars = axes.barh(
        [*values], means, color=colours, xerr=np.array(ends).T, error_kw={"elinewidth": 1, "ecolor": "#333"}
    )
    axes.bar_label(bars, [f"{mean:.3f}" for mean in means], label_type="center", color="white", fontsize=9)
    axes.set(xlabel="NDCG@10 on unseen definitions: mean and range over seeds", xlim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    print(f"drawn: {file}\n")


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    ends = "" if len(values) == 1 else f" ({min(values):.3f} to {max(values):.3f})"
    return f"{float(np.mean(values)):.3f}{ends}"


def _gains(rows: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
    """The difference of the main arm to each rival, with an interval over seeds and tasks, and the goal."""
    found = []
    for group, kinds in GROUPS.items():
        for rival in AGAINST:
            differences = [
                [
                    row["scores"][MAIN]["ndcg"] - row["scores"][rival]["ndcg"]
                    for row in of_seed
                    if row["group"] in kinds and MAIN in row["scores"] and rival in row["scores"]
                ]
                for of_seed in rows.values()
            ]
            differences = [one for one in differences if one]
            if differences:
                value, low, high = interval([np.array(one) for one in differences])
                met = "" if group != POOLED else "met" if value >= GOAL and low > 0 else "missed"
                found.append([group, rival, f"{value:+.3f} ({low:+.3f} to {high:+.3f})", met])
    if found:
        print(table(["tasks", f"{MAIN}, less", "NDCG@10, 95 %", f"goal {GOAL:+.2f}"], found) + "\n")


def interval(of_seeds: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Mean, and its 95 % interval: seeds are drawn anew, and within each its tasks."""
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(RESAMPLES):
        chosen = [of_seeds[place] for place in generator.integers(len(of_seeds), size=len(of_seeds))]
        draws.append(np.mean([one[generator.integers(len(one), size=len(one))].mean() for one in chosen]))
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(np.mean([one.mean() for one in of_seeds])), float(low), float(high)


def _choices(reports: Reports) -> None:
    """What `generate` would choose by a user's own pairs, less the base."""
    rows = []
    networks = list(dict.fromkeys(name for _, report in reports for name in report["chosen"]))
    for network in networks:
        shown = [report["chosen"][network] for _, report in reports if network in report["chosen"]]
        for group, by_pairs in shown[0].items():
            for pairs in by_pairs:
                found = [one[group][pairs] for one in shown if group in one]
                names = dict.fromkeys(name for one in found for name in one["chosen"])
                picked = ", ".join(f"{name} {sum(one['chosen'].get(name, 0) for one in found)}" for name in names)
                gains = [one["gain"]["value"] for one in found]
                bar = "kept" if all(one["kept_bar"] for one in found) else "missed"
                best = float(np.mean([one["best_gain"] for one in found]))
                worse = f"{sum(one['worse'] for one in found)} of {sum(one['tasks'] for one in found)}"
                rows.append([network, group, pairs, _signed(gains), bar, worse, f"{best:+.3f}", picked])
    header = ["", "tasks", "pairs", "chosen less base", "≥ −.01", "worse by .01", "perfect choice", "chosen"]
    if rows:
        print(table(header, rows) + "\n")


def _signed(values: Sequence[float]) -> str:
    ends = "" if len(values) == 1 else f" ({min(values):+.3f} to {max(values):+.3f})"
    return f"{float(np.mean(values)):+.3f}{ends}"


def _chart(reports: Reports) -> None:
    """Base, own adapter and what is generated on the same tasks, beside what was claimed."""
    charts = [report["chart"]["means"] for _, report in reports if report.get("chart")]
    if not charts:
        return
    rows = [
        [arm, *(_spread([chart[arm][measure] for chart in charts]) for measure in ("ndcg", "recall", "mrr"))]
        for arm in charts[0]
    ]
    print(table(["the user's chart", "NDCG@10", "Recall@5", "MRR@10"], rows) + "\n")
    for claim, arm in (("+5.2 % over LoRA", "text-to-lora"), ("within 3 % of LoRA", "drag-and-drop")):
        found = [100 * (chart[arm]["ndcg"] / chart["own adapter"]["ndcg"] - 1) for chart in charts if arm in chart]
        if found:
            print(f"claimed of {arm}: {claim}; found: {float(np.mean(found)):+.1f} % ({len(found)} seeds)\n")


def _curve(reports: Reports) -> None:
    """Quality against seconds."""
    rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for _, report in reports:
        for network, groups in report.get("curve", {}).items():
            for group, points in groups.items():
                for one in points:
                    key = (network, group, one["start"], str(one["pairs"]), str(one["steps"]))
                    rows.setdefault(key, []).append(one)
    if rows:
        cells = [
            [*key, _spread([one["ndcg"] for one in found]), f"{float(np.mean([one['seconds'] for one in found])):.2f}"]
            for key, found in rows.items()
        ]
        print(table(["network", "tasks", "start", "pairs", "steps", "NDCG@10", "seconds"], cells) + "\n")


if __name__ == "__main__":
    main()
