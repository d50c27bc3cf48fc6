"""What every dataset must do: be prepared, verified, shown and trained on.

`ROWS` has a row for each; a new dataset needs nothing else in the tests.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import miniature_clips
import miniature_net
import miniatures
import numpy as np
import pytest
from PIL import Image

from keras_seg import losses, metrics, nets
from keras_seg.config import Augment
from keras_seg.data import DATASETS, load, pipeline, prepare
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import UsageError

CARDS = Path(__file__).parents[1] / "datasets"
WIDE, SQUARE = (32, 48), (32, 32)  # SURREAL's crops are squares


@dataclass(frozen=True)
class Row:
    """A dataset in small.

    Attributes:
        make: writes its raw tree; returns the labels, where they are arrays.
        classes: their number.
        options: that its command needs.
        dataset: its name in meta.json, where that is another one.
        size: of the prepared images.
        truth: from a raw label of `make` to the prepared one, without resizing.
    """

    make: Callable[[Path], dict | list]
    classes: int
    options: tuple[str, ...] = ()
    dataset: str = ""
    size: tuple[int, int] = WIDE
    truth: Callable[[np.ndarray], np.ndarray] = field(default=lambda label: label)


def scored(label):
    """Cityscapes' id -> trainId, as its authors publish it; all others are ignored."""
    ids = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    return np.vectorize(lambda i: ids.index(i) if i in ids else 255)(label)


ALL = ("--frames", "all", "all", "all")
ROWS = {
    "camvid": Row(miniatures.camvid, 11),
    "cityscapes": Row(miniatures.cityscapes, 19, truth=scored),
    "voc": Row(miniatures.voc, 21, dataset="voc2007"),
    "atr": Row(miniatures.atr, 18, truth=miniatures.square),
    "ccp": Row(miniatures.ccp, 59, ("--no-square",)),
    "folder": Row(miniatures.folder, 3, ("--classes", "a,b,c", "--group-by", "seq.")),
    "surreal": Row(miniature_clips.dataset, 25, ALL, size=SQUARE),
    "synthetic_humans": Row(miniature_clips.dataset, 25, size=SQUARE),
}


def test_every_dataset_has_a_row_and_a_card():
    assert ROWS.keys() == DATASETS.keys()
    for name in ROWS.keys() - {"synthetic_humans"}:  # generated, not obtained
        card = (CARDS / f"{name}.md").read_text()
        assert f"python datasets/prepare.py {name} " in card
        for heading in ("Licence", "Expected tree", "Expected counts"):
            assert heading in card, name


def test_the_table_of_datasets():
    assert load("camvid").LABELS.num_classes == 11
    with pytest.raises(UsageError, match="Unknown dataset 'coco'. Datasets: surreal, "):
        load("coco")
    with pytest.raises(TypeError):
        DATASETS["coco"] = "x"


@pytest.mark.parametrize("name", [name for name in ROWS if ROWS[name].size == WIDE])
def test_labels_are_those_of_the_raw_files(name, tmp_path):
    row = ROWS[name]
    expected = row.make(tmp_path / "raw")
    places = ["--src", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    assert prepare.main([name, *places, *row.options]) == 0
    prepared = open_prepared(tmp_path / "out")
    labels = {key: row.truth(label) for key, label in expected.items()}
    if name == "cityscapes":  # the labels of test are withheld
        assert prepared.splits == ("train", "val")
    miniatures.assert_labels(prepared, labels)
    assert prepare.main(["verify", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("name", ROWS)
def test_prepare_verify_show_and_train(name, tmp_path, capsys):
    row = ROWS[name]
    row.make(tmp_path / "raw")
    out, size = tmp_path / "out", [str(side) for side in row.size]
    command = [name, "--src", str(tmp_path / "raw"), "--out", str(out), *row.options]
    command += ["--size", *size, "--limit", "2"]
    assert prepare.main(command) == 0
    assert capsys.readouterr().out.startswith(f"prepared: {out} (train 2, val ")
    prepared = open_prepared(out)
    assert prepared.dataset == (row.dataset or name)
    assert prepared.image_size == row.size
    assert prepared.labels.num_classes == row.classes
    assert all(1 <= len(prepared.samples(split)) <= 2 for split in prepared.splits)

    assert prepare.main(command) == 0
    assert capsys.readouterr().out.startswith("already prepared: ")
    assert prepare.main(["show", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"shown: {out} (train 2, ")
    assert printed.endswith(f"\n{out / 'sheet.png'}\n")
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 1000
        assert sheet.height > 200
    assert prepare.main(["verify", str(out)]) == 0  # the sheet does no harm
    assert capsys.readouterr().out.startswith(f"whole: {out} (train 2, ")
    with miniature_net.known():
        train_one_step(prepared, row)


def train_one_step(prepared, row):
    name, knobs = miniature_net.NAME, {"early": False}
    net = nets.build(name, (*row.size, 3), row.classes, **knobs)
    net.compile(
        keras.optimizers.SGD(0.1),
        loss=losses.for_heads(net, losses.CrossEntropy()),
        metrics={"logits": metrics.ConfusionMatrix(row.classes)},
        run_eagerly=True,
    )
    feed = pipeline.Feed(
        pipeline.Samples(prepared, "train", row.size),
        batch=2,
        preprocess=nets.get(name).preprocess,
        heads=nets.heads(name, row.classes, **knobs),
    )
    augment = Augment(mirror=0.5, swap_lr=True)
    batches = feed.training(0, augment, start_step=0, stop_step=1).dataset()
    before = [np.array(weight) for weight in net.trainable_weights]
    logs = net.fit(batches, shuffle=False, verbose=0).history
    # The loss of equal scores is log C; fresh weights give about that.
    assert 0.3 * np.log(row.classes) < logs["loss"][0] < 4 * np.log(row.classes)
    moved = [np.any(np.array(w) != b) for w, b in zip(net.trainable_weights, before)]
    assert all(moved)
