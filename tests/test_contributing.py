"""The examples of CONTRIBUTING.md work: a net with its row, a study."""

import inspect
import json
import re
import sys
import types
from pathlib import Path

import pytest
import test_nets
import test_plans

from keras_seg import nets, study

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL
)


def entry(block, namespace):
    """The value of a `"tiny_fcn": ...,` block."""
    return eval(f"{{{block}}}", namespace)["tiny_fcn"]


@pytest.fixture
def without_row(monkeypatch):
    """The example's file and line in place; gives its row."""
    file, line, row, *_ = BLOCKS
    module = types.ModuleType("keras_seg.nets.tiny_fcn")
    exec(file, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    added = dict(nets.NETS) | {"tiny_fcn": entry(line, vars(nets))}
    monkeypatch.setattr(nets, "NETS", added)
    return entry(row, vars(test_nets))


@pytest.fixture
def with_row(without_row, monkeypatch):
    monkeypatch.setitem(test_nets.ROWS, "tiny_fcn", without_row)


def arguments(test):
    return set(inspect.signature(test).parameters)


ROW_TESTS = [
    test
    for name, test in vars(test_nets).items()
    if name.startswith("test_")
    and arguments(test) & {"name", "small_net"}
    and arguments(test) <= {"name", "small_net", "tmp_path"}
]


@pytest.mark.parametrize("test", ROW_TESTS, ids=lambda test: test.__name__)
@pytest.mark.usefixtures("with_row")
def test_the_example_passes_the_tests_of_every_net(test, tmp_path):
    values = {"name": "tiny_fcn", "tmp_path": tmp_path}
    if "small_net" in arguments(test):
        values["small_net"] = test_nets.make_small_net("tiny_fcn")
    test(**{argument: values[argument] for argument in arguments(test)})


def test_the_tests_of_every_net_are_found():
    assert len(ROW_TESTS) >= 12


@pytest.mark.usefixtures("with_row")
def test_the_example_with_its_row_is_complete():
    test_nets.test_every_net_has_a_row()


@pytest.mark.usefixtures("without_row")
def test_a_net_without_its_row_fails_the_tests():
    with pytest.raises(AssertionError):
        test_nets.test_every_net_has_a_row()


@pytest.fixture
def streets(tmp_path):
    """The path of the example's study."""
    path = tmp_path / "streets.py"
    path.write_text(BLOCKS[-1])
    return path


def test_the_study_of_the_example_is_found_by_its_path(streets, capsys):
    arguments = ["--study", str(streets), "--net", "icnet", "--stage", "mirror"]
    assert study.main([*arguments, "--plan", "--json", "--scale", "paper"]) == 0
    title, plain, mirror = capsys.readouterr().out.splitlines()
    assert title == "icnet mirror: Starts from the network as it is."
    # 367 images, 16 a batch: 23 steps an epoch.
    assert json.loads(plain.removeprefix("  plain: "))["steps"] == 50 * 23
    mirrored = json.loads(mirror.removeprefix("  mirror: "))
    assert mirrored["augment"]["mirror"] == 0.5


def test_the_study_of_the_example_passes_the_tests_of_every_study(streets):
    example = study.load(str(streets))
    ((_, plan),) = example.plans.items()
    (stage,) = plan.stages
    test_plans.test_a_smoke_test_is_small(example, plan, stage)
    test_plans.test_what_a_stage_names_exists(example, plan, stage)
    for scale in ("smoke", "demo", "bench", "paper"):
        test_plans.test_every_net_takes_its_knobs_and_size(example, plan, stage, scale)
