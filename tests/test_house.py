"""The house rules: who may import whom, how long things may be, what is documented, what a user waits for."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, get_type_hints

import pytest

from acclimate import configs

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "acclimate"

GROUND = (
    "types",
    "errors",
    "files",
    "paths",
    "configs",
    "counting",
    "progress",
    "processes",
    "cpu",
    "prompts",
    "text_use",
    "ownership",
    "sqlite_file",
)
ORDER = (
    ("ground",),
    ("core",),
    ("data", "formats"),
    ("models",),
    ("runs",),
    ("retrieval", "feedback"),
    ("mining", "evaluation"),
    ("training", "pairing"),
    ("report",),
    ("stages",),
    ("flows",),
    ("cli",),
)
"""The picture in docs/architecture.md: a room imports from rooms before its own group, and from itself."""
MAY_IMPORT: dict[str, set[str]] = {
    name: {earlier for group in ORDER[:place] for earlier in group}
    for place, names in enumerate(ORDER)
    for name in names
}
MAY_IMPORT["serve"] = {name for group in ORDER[:6] for name in group}
"""The service answers with finished models: it never trains, and only the command line starts it."""
MAY_IMPORT["cli"] |= {"serve", "face"}
MAY_IMPORT["face"] = set(MAY_IMPORT) - {"cli", "serve"}
"""The package's own `__init__` names what users of Python need, imported when it is asked for. The command line takes
the version from it; nobody else imports it."""

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_INHERITANCE = 2

LONGER_FILES: dict[str, str] = {}
LONGER_FUNCTIONS: dict[str, str] = {}
DEEPER_CLASSES: dict[str, str] = {}
"""The visible exceptions to the three budgets: name -> why. Empty is how they should stay."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Import(NamedTuple):
    """One import of our own package: `source` imports `target`, on a line."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}, imports {self.target}"


@cache
def trees() -> dict[str, ast.Module]:
    """Module name -> its syntax tree, for every module of the package."""
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_path(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported_names(module: str, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Everything a module imports, absolute, wherever in the file: function-level imports count too."""
    package = module if module_path(module).name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{origin}.{alias.name}", node.lineno) for alias in node.names)


def own_imports() -> list[Import]:
    """The imports between our own modules."""
    found = []
    for module, tree in trees().items():
        for name, line in imported_names(module, tree):
            target = name
            while target and target not in trees():
                target = target.rpartition(".")[0]
            if target and target != module:
                found.append(Import(module, target, line))
    return found


def room(module: str) -> str:
    """The room a module is in; the package's own `__init__` is the face."""
    parts = module.split(".")
    if parts[1:] == ["__main__"]:
        return "cli"
    if len(parts) == 1:
        return "face"
    return "ground" if parts[1] in GROUND else parts[1]


def functions() -> Iterator[tuple[str, Function]]:
    for module, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{module}.{node.name}", node


def test_every_room_is_in_the_picture() -> None:
    assert {room(module) for module in trees()} <= set(MAY_IMPORT)
    for name in (*GROUND, *MAY_IMPORT):
        if name != "ground":
            assert name in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def drawn_modules(tree: str) -> set[str]:
    """The paths, relative to the package, of all files in the drawn tree: a line belongs to the folder above it."""
    found: set[str] = set()
    folders: list[tuple[int, str]] = []
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        folders = [(depth, name) for depth, name in folders if depth < indent]
        if folder := re.match(r"\s+(\w+)/", line):
            folders.append((indent, folder[1]))
        found |= {"/".join([*(name for _, name in folders), name]) for name in re.findall(r"\b\w+\.py\b", line)}
    return found


def test_the_tree_in_the_architecture_is_whole() -> None:
    """Every module is in docs/architecture.md under its folder, and every module there exists."""
    tree = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    there = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    assert drawn_modules(tree) == there


def test_one_of_two_files_of_a_name_is_missed() -> None:
    tree = "src/acclimate/\n  errors.py  the tree\n  core/\n    mine.py  x\n  stages/ one verb\n    mine.py rank.py\n"
    assert drawn_modules(tree) == {"errors.py", "core/mine.py", "stages/mine.py", "stages/rank.py"}


def test_the_chain_to_the_mathematics_is_one_of_imports() -> None:
    """Each file that docs/architecture.md names on the way imports the next."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## From a command to the mathematics")[1].split("##")[0]
    chain = re.search(r"`[^`]+`(?: → `[^`]+`)+", section)
    assert chain is not None
    named = [name.strip("`/").removesuffix(".py").replace("/", ".") for name in chain[0].split(" → ")]
    modules = ["acclimate.cli.commands.train", "acclimate.flows.verbs", *(f"acclimate.{name}" for name in named)]
    assert len(named) <= 4
    imports = {(item.source, item.target) for item in own_imports()}
    for source, target in pairwise(modules):
        assert any(a == source and (b == target or b.startswith(f"{target}.")) for a, b in imports), (source, target)


def test_what_the_next_things_call_is_there() -> None:
    """The last column of "Where the next things go" names functions and classes that exist."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = text.split("## Where the next things go")[1].split("##")[0].splitlines()
    cells = [row.split("|")[3] for row in rows if row.startswith("| ") and "---" not in row][1:]
    named = [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell) if "." in name]
    assert len(cells) == 7
    assert [name for name in named if not exists(name)] == []


def exists(dotted: str) -> bool:
    """Whether `room.module.Name[.member]` (or `Class.member` of the encoder) is defined in the package."""
    if dotted.startswith("Encoder."):
        dotted = f"models.encoder.{dotted}"
    parts = dotted.split(".")
    for split in range(len(parts) - 1, 0, -1):
        if (tree := trees().get("acclimate." + ".".join(parts[:split]))) is None:
            continue
        body: list[ast.stmt] = tree.body
        for name in parts[split:]:
            node = next((n for n in body if isinstance(n, Function | ast.ClassDef) and n.name == name), None)
            if node is None:
                return False
            body = node.body
        return True
    return False


def test_imports_follow_the_arrows() -> None:
    wrong = [
        str(item)
        for item in own_imports()
        if room(item.source) != room(item.target) and room(item.target) not in MAY_IMPORT[room(item.source)]
    ]
    assert wrong == []


def test_a_stage_imports_no_stage() -> None:
    """What puts stages in a row is a flow."""
    wrong = [
        str(item)
        for item in own_imports()
        if room(item.source) == room(item.target) == "stages" and item.target != "acclimate.stages"
    ]
    assert wrong == []


def test_values_not_the_whole_config_are_what_lower_rooms_read() -> None:
    """The whole `RunConfig` is for stages, and for what finds the models and tasks of a run."""
    lower = {"core", "data", "formats", "models", "retrieval", "mining", "evaluation"}
    wrong = [
        f"{module}, line {line}"
        for module, tree in trees().items()
        if room(module) in lower
        for name, line in imported_names(module, tree)
        if name.endswith(".RunConfig")
    ]
    assert wrong == []


def test_the_service_is_started_by_the_command_line_only() -> None:
    assert {room(item.source) for item in own_imports() if room(item.target) == "serve"} <= {"cli", "serve"}


def test_no_import_cycle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in trees()}
    for item in own_imports():
        graph[item.source].add(item.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


BESIDES = {
    "acclimate.progress": {"rich"},
    "acclimate.processes": {"torch"},
    "acclimate.cpu": {"torch", "psutil"},
    "acclimate.core.analyser": {"regex", "snowballstemmer"},
}
"""What the lower rooms need of others: a terminal's bar, the talk of several processes, what cores do, a language's
words."""


@pytest.mark.parametrize(("rooms", "allowed"), [("ground", set()), ("core", {"numpy", "torch"})])
def test_lower_rooms_import_few_libraries(rooms: str, allowed: set[str]) -> None:
    """The ground stands on the standard library, core on numpy and torch, but for what `BESIDES` names."""
    wrong = []
    for module, tree in trees().items():
        if room(module) != rooms:
            continue
        libraries = allowed | BESIDES.get(module, set())
        for name, line in imported_names(module, tree):
            top = name.split(".")[0]
            if top not in {*sys.stdlib_module_names, *libraries, "acclimate"}:
                wrong.append(f"{module}, line {line}, imports {name}")
    assert wrong == []


def test_files_are_short() -> None:
    lengths = {module: len(module_path(module).read_text(encoding="utf-8").splitlines()) for module in trees()}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES and name not in LONGER_FILES} == {}


def test_functions_are_short() -> None:
    lengths = {name: (node.end_lineno or node.lineno) - node.lineno + 1 for name, node in functions()}
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES and name not in LONGER_FUNCTIONS} == {}


def test_inheritance_is_shallow() -> None:
    """Counted over our own classes: a class of ours below a class of ours has depth 2."""
    bases: dict[str, list[str]] = {}
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [ast.unparse(base).split(".")[-1] for base in node.bases]

    def depth(name: str) -> int:
        return 1 + max((depth(base) for base in bases[name] if base in bases), default=0)

    assert "AcclimateError" in bases
    assert {name: depth(name) for name in bases if depth(name) > MAX_INHERITANCE and name not in DEEPER_CLASSES} == {}


def test_every_exception_to_a_budget_is_still_needed() -> None:
    lengths = {name: (node.end_lineno or node.lineno) - node.lineno + 1 for name, node in functions()}
    assert [name for name in LONGER_FUNCTIONS if lengths.get(name, 0) <= MAX_FUNCTION_LINES] == []
    files = {module: len(module_path(module).read_text(encoding="utf-8").splitlines()) for module in trees()}
    assert [name for name in LONGER_FILES if files.get(name, 0) <= MAX_FILE_LINES] == []


def test_every_module_says_what_it_is() -> None:
    assert [module for module, tree in trees().items() if not ast.get_docstring(tree)] == []


def test_everything_public_is_documented() -> None:
    """Classes and functions of a module, and methods, whose names have no underscore; not functions in functions."""
    missing = []
    for module, tree in trees().items():
        scopes: list[tuple[str, ast.Module | ast.ClassDef]] = [(module, tree)]
        while scopes:
            name, scope = scopes.pop()
            for node in scope.body:
                if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                    continue
                if isinstance(node, ast.ClassDef):
                    scopes.append((f"{name}.{node.name}", node))
                if not ast.get_docstring(node) and not explains_itself(node):
                    missing.append(f"{name}.{node.name}, line {node.lineno}")
    assert missing == []


def explains_itself(node: Function | ast.ClassDef) -> bool:
    """A property, an overload, a protocol's `...`, or torch's `forward`: the class, or the name, says what it is."""
    decorators = {ast.unparse(item) for item in node.decorator_list}
    is_stub = isinstance(node.body[-1], ast.Expr) and ast.unparse(node.body[-1]) == "..."
    return node.name == "forward" or bool(decorators & {"property", "overload", "override"}) or is_stub


PHRASES = {"begins with Of": r"\AOf\b", "see there": r"\bsee there\b", "so many of": r"\bso many of\b"}
"""What a reader stumbles over: phrase -> its pattern."""


def docstrings() -> Iterator[tuple[str, int, str]]:
    """Module, line and text of every string that documents something, fields and constants included."""
    for module, tree in trees().items():
        for node in ast.walk(tree):
            match node:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield module, node.lineno, text


@pytest.mark.parametrize("phrase", PHRASES)
def test_docstrings_are_understood_at_first_reading(phrase: str) -> None:
    """They begin with a verb or a noun, and never send the reader elsewhere for a few words."""
    wrong = [
        f"{module}, line {line}: {text.strip().splitlines()[0]}"
        for module, line, text in docstrings()
        if re.search(PHRASES[phrase], text.strip(), re.IGNORECASE)
    ]
    assert wrong == []


def test_every_config_field_is_documented_under_it() -> None:
    undocumented = []
    definitions = [
        node for module, tree in trees().items() if module.startswith("acclimate.configs.") for node in tree.body
    ]
    for node in definitions:
        if isinstance(node, ast.ClassDef):
            for field, following in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
                documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                if isinstance(field, ast.AnnAssign) and not documented:
                    undocumented.append(f"{node.name}.{ast.unparse(field.target)}")
    assert "RunConfig" in {node.name for node in definitions if isinstance(node, ast.ClassDef)}
    assert undocumented == []


def test_config_field_names_are_unique_over_the_sections() -> None:
    """So that each of them can be a flag without its section's name."""
    hints = get_type_hints(configs.RunConfig)
    sections = [hint for hint in hints.values() if dataclasses.is_dataclass(hint)]
    names = [*hints, *(field.name for section in sections for field in dataclasses.fields(section))]
    assert len(sections) >= 4
    assert sorted(names) == sorted(set(names))


def test_help_loads_no_torch() -> None:
    """`acclimate --help` answers at once: no numerical library is imported on the way."""
    code = (
        "import sys\n"
        "sys.argv = ['acclimate', '--help']\n"
        "from acclimate.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'numpy', 'transformers', 'sentence_transformers', 'faiss', 'datasets', 'scipy'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert "adapt" in done.stdout


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Every file of ours that is text, whether committed yet or not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix not in {".png", ".parquet", ".npy", ".safetensors"}:
            yield name, path.read_text(encoding="utf-8", errors="replace")


FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/(?:work|home|Users|root|tmp)/\w",
    "a package registry's host": r"\b(?:pypi|pythonhosted|download\.pytorch)\.org\b|\bfiles\.pythonhosted\b",
}

CPU_INSTALL = re.compile(r"^pip install torch==\S+ --index-url https://download\.pytorch\.org/whl/cpu$")
"""The one line that names a host, in the READMEs alone: without PyTorch's public index, a machine without a GPU fetches
gigabytes of CUDA libraries."""


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_mentions(what: str) -> None:
    found = [
        f"{name}, line {row}: {line.strip()[:100]}"
        for name, text in tracked_texts()
        if name != "tests/test_house.py"
        for row, line in enumerate(text.splitlines(), 1)
        if re.search(FORBIDDEN[what], line)
        and not (name in ("README.md", "README.zh-CN.md") and CPU_INSTALL.match(line))
    ]
    assert found == []


def test_no_pickle() -> None:
    """Nothing that can run code when it is read: no pickle and its kin, no `torch.load` and `torch.save`."""
    pickles = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    wrong = []
    for module, tree in trees().items():
        names = {name.split(".")[0] for name, _ in imported_names(module, tree)}
        wrong += [f"{module} imports {name}" for name in sorted(names & pickles)]
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save" as call)):
                    wrong.append(f"{module}, line {node.lineno}: torch.{call}")
                case ast.keyword(arg="allow_pickle" | "trust_remote_code" as option, value=ast.Constant(value=True)):
                    wrong.append(f"{module}, line {node.lineno}: {option}=True")
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "module", "expected"),
    [
        ("from .core import lora", "acclimate.types", ["acclimate.core.lora"]),
        ("def f():\n    import acclimate.cli.main", "acclimate.core.lora", ["acclimate.cli.main"]),
        ("from ..stages import mine", "acclimate.training.fit", ["acclimate.stages.mine"]),
    ],
)
def test_imports_are_seen_wherever_they_hide(source: str, module: str, expected: list[str]) -> None:
    assert [name for name, _ in imported_names(module, ast.parse(source))] == expected
