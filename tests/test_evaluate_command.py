"""tools/evaluate.py --report groups13: the thesis' groups of body parts."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from keras_seg.data.surreal import LABELS
from keras_seg.errors import UsageError

EVALUATE = Path(__file__).resolve().parents[1] / "tools" / "evaluate.py"


@pytest.fixture(scope="module")
def evaluate():
    return runpy.run_path(str(EVALUATE))


def test_groups_of_published_multiplicities(evaluate, capsys):
    """Spec 4.4: a group's value is the mean of its members' recalls."""
    confusion = np.zeros((25, 25), np.int64)
    recalls = np.zeros(25)
    recalls[[1, 4, 7, 10]] = 0.9, 0.8, 0.5, 0.2  # torso: 60 %
    recalls[[2, 3]] = 0.3, 0.4  # upper legs: 35 %
    for class_id, recall in enumerate(recalls):
        size = 10 * (class_id + 1)  # a merged class would weigh by size
        confusion[class_id, class_id] = round(recall * size)
        confusion[class_id, 16] += size - round(recall * size)
    confusion[13] = 0  # no neck
    evaluate["print_groups"](
        {"confusion": confusion.tolist(), "summary": {"mean_accuracy": 0.1875}}
    )
    lines = dict(
        line.rsplit(" accuracy ", 1) for line in capsys.readouterr().out.splitlines()
    )
    found = {name.strip(): value for name, value in lines.items()}
    assert len(found) == 14
    assert found["Torso"] == "60.00 %"
    assert found["U.Legs"] == "35.00 %"
    assert found["Head"] == "100.00 %"
    assert found["Neck"] == "absent"
    assert found["All Classes"] == "18.75 %"


def test_other_classes_are_refused(evaluate):
    evaluate["refuse_other_classes"](list(LABELS.names))
    with pytest.raises(UsageError, match="groups13; expected classes, or a run with"):
        evaluate["refuse_other_classes"](["road", "sky"])
