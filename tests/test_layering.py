"""Who imports whom (docs/architecture.md), what is banned, and what stays light."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_seg"
# The parts of the package from the ground up; those of one floor may import each other
# as long as there is no cycle.
FLOORS = (
    "errors labels config storage command_line backend preprocess",
    "nets losses class_weights metrics plots data synthetic",
    "runs",
    "ablation",
    "report",
    "study",
    "__init__ __main__",
)
FLOOR = {name: n for n, floor in enumerate(FLOORS) for name in floor.split()}
MOST_ARROWS = 65
TOP_LEVEL = {"datasets", "ablations", "tools", "tests"}
OWN = [
    *PACKAGE.rglob("*.py"),
    *(f for d in TOP_LEVEL for f in (ROOT / d).rglob("*.py")),
]
LOADERS = {"run_path", "run_module", "spec_from_file_location", "SourceFileLoader"}


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """All of a file's syntax."""
    return list(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in the file, as dotted names."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(name: str) -> str:
    """The part of the package a dotted name belongs to; "" for others'."""
    names = name.split(".")
    return names[1] if names[0] == "keras_seg" and names[1:2] != [] else ""


def arrows() -> set[tuple[str, str]]:
    """(importer, imported) of all pairs of parts."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        found |= {(own, part(name)) for name in imports(path)}
    return {(own, other) for own, other in found if other in FLOOR and other != own}


def test_every_part_has_its_floor():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py"}
    parts |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert parts == set(FLOOR)


def test_arrows_are_few_and_point_downwards_without_a_cycle():
    found = arrows()
    print(f"{len(found)} arrows:", *sorted(" -> ".join(pair) for pair in found))
    assert len(found) <= MOST_ARROWS
    assert not {(a, b) for a, b in found if FLOOR[a] < FLOOR[b]}
    below = {name: {b for a, b in found if a == name} for name in FLOOR}
    while below:
        ground = {name for name, others in below.items() if not others}
        assert ground, f"a cycle among {sorted(below)}"
        below = {name: below[name] - ground for name in below.keys() - ground}


def test_the_package_imports_no_other_top_level_folder():
    for path in PACKAGE.rglob("*.py"):
        roots = {name.partition(".")[0] for name in imports(path)}
        assert not roots & TOP_LEVEL, path


def test_only_a_study_is_loaded_by_its_path():
    """And in one place: keras_seg/study.py."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in OWN
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and node.attr in LOADERS
    }
    assert found == {"keras_seg/study.py"}


def test_argparse_is_left_to_the_command_lines():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "argparse" in imports(path)
    }
    doors = {"__main__.py", "synthetic/__main__.py", "data/prepare.py"}
    assert found <= {"command_line.py", *doors}


def test_datasets_is_no_package_and_there_is_no_utils():
    assert not (ROOT / "datasets" / "__init__.py").exists()
    assert not list(ROOT.rglob("keras_seg/**/utils.py"))


def test_every_test_file_is_collected():
    for path in (ROOT / "tests").glob("*.py"):
        has_tests = re.search(r"^def test_", path.read_text(), re.MULTILINE)
        assert path.name.startswith("test_") or not has_tests, path


BANNED_NAMES = {"pickle", "joblib", "dill", "marshal", "shelve"}
BANNED_CALLS = {"eval", "exec", "Lambda", "enable_unsafe_deserialization"}
BANNED_ARGUMENTS = {"allow_pickle": True, "safe_mode": False, "weights_only": False}


def test_nothing_runs_code_from_files():
    for path in (path for path in OWN if "tests" not in path.parts):
        assert not {n.partition(".")[0] for n in imports(path)} & BANNED_NAMES, path
        for node in nodes(path):
            if isinstance(node, ast.Call):
                function = node.func
                name = getattr(function, "attr", getattr(function, "id", ""))
                assert name not in BANNED_CALLS, f"{path}:{node.lineno}"
                for argument in node.keywords:
                    value = getattr(argument.value, "value", None)
                    banned = BANNED_ARGUMENTS.get(argument.arg, ...)
                    assert value is not banned, f"{path}:{node.lineno}"


LIGHT = (
    *("keras_seg", "keras_seg.nets", "keras_seg.nets.summary", "keras_seg.data"),
    *("keras_seg.config", "keras_seg.labels", "keras_seg.errors", "keras_seg.plots"),
    *("keras_seg.runs.train", "keras_seg.runs.folder", "keras_seg.runs.export"),
    *("keras_seg.ablation.runner", "keras_seg.study", "keras_seg.__main__"),
)


def test_light_modules_import_neither_keras_nor_tensorflow():
    script = f"""
import importlib, sys
for name in {LIGHT!r}:
    importlib.import_module(name)
unwanted = {{"keras", "tensorflow", "torch", "matplotlib.pyplot"}}
print(sorted(unwanted & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
