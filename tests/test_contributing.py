"""The example of CONTRIBUTING.md is a network that builds as it says."""

import re
import sys
import types
from pathlib import Path

import pytest
import test_nets
from outlines import count, outline

from keras_seg import nets

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def entry(block, namespace):
    """The value of a `"tiny_fcn": ...,` block."""
    return eval(f"{{{block}}}", namespace)["tiny_fcn"]


@pytest.fixture
def row(monkeypatch):
    """The example's row, with its file and its line in place."""
    file, line, row = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    module = types.ModuleType("keras_seg.nets.tiny_fcn")
    exec(file, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    added = dict(nets.NETS) | {"tiny_fcn": entry(line, vars(nets))}
    monkeypatch.setattr(nets, "NETS", added)
    return entry(row, vars(test_nets))


def test_the_example_is_as_its_row_says(row):
    model = outline("tiny_fcn", row.reference, row.num_classes)
    doubled = outline("tiny_fcn", row.reference, row.num_classes, filter_scale=2)
    assert count(model.trainable_weights) == row.trainable
    assert count(model.weights) == row.weights
    assert count(doubled.trainable_weights) == row.doubled
    assert model.output["logits"].shape[1:3] == row.outputs["logits"]
    assert nets.get("tiny_fcn").reference == (*row.reference, row.num_classes)
    assert set(nets.heads("tiny_fcn", 5)) == {"logits"}


def test_a_net_without_its_row_fails_the_tests(row):
    with pytest.raises(AssertionError):
        test_nets.test_every_net_has_a_row()
