"""Who imports whom (architecture), what is banned, and what stays light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_seg"
LEAVES = (
    *("labels", "preprocess", "losses", "class_weights", "metrics", "schedules"),
    *("errors", "config"),
)
TOP_LEVEL = {"datasets", "ablations", "tools", "tests"}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in the file, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
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
    return names[1] if names[0] == "keras_seg" and len(names) > 1 else ""


RUNS = {"training", "fitting", "ablation", "evaluation", "export", "event_log"}
RUNS |= {"optimizers", "run_folder", "figures"}
FORBIDDEN = {
    "nets": RUNS | {"data", "synthetic", "checkpoint", "backend"},
    "data": RUNS | {"nets", "backend"},
    "synthetic": RUNS | {"nets", "data", "checkpoint", "backend"},
    "checkpoint": RUNS | {"nets", "data", "synthetic", "backend"},
    "training": {"ablation"},
    "fitting": {"ablation", "training"},
    "evaluation": {"ablation", "training", "fitting"},
    "export": {"ablation", "training", "fitting"},
}


def test_dependencies_point_one_way():
    for path in modules():
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for name in imports(path):
            assert part(name) not in FORBIDDEN.get(own, ()), f"{path}: {name}"


def test_leaves_import_leaves_only():
    for leaf in LEAVES:
        found = {part(name) for name in imports(PACKAGE / f"{leaf}.py")}
        assert found <= {"", *LEAVES}, leaf


def test_the_package_imports_no_other_top_level_folder():
    for path in modules():
        roots = {name.partition(".")[0] for name in imports(path)}
        assert not roots & TOP_LEVEL, path


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
    folders = ("keras_seg", "tools", "datasets", "ablations")
    for path in (file for name in folders for file in (ROOT / name).rglob("*.py")):
        assert not {n.partition(".")[0] for n in imports(path)} & BANNED_NAMES, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                function = node.func
                name = getattr(function, "attr", getattr(function, "id", ""))
                assert name not in BANNED_CALLS, f"{path}:{node.lineno}"
                for argument in node.keywords:
                    value = getattr(argument.value, "value", None)
                    banned = BANNED_ARGUMENTS.get(argument.arg, ...)
                    assert value is not banned, f"{path}:{node.lineno}"


LIGHT = (
    *("keras_seg", "keras_seg.nets", "keras_seg.data", "keras_seg.config"),
    *("keras_seg.labels", "keras_seg.errors", "keras_seg.runs.train"),
    *("keras_seg.runs.folder", "keras_seg.ablation.runner", "keras_seg.plots"),
    "keras_seg.runs.export",
)


def test_light_modules_import_neither_keras_nor_tensorflow():
    script = f"""
import importlib, sys
for name in {LIGHT!r}:
    importlib.import_module(name)
print(sorted({{"keras", "tensorflow", "torch"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
