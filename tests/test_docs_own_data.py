"""Every command of docs/how-to/own-data.md does what it says, on generated data."""

import json
import subprocess
import sys
from pathlib import Path

import miniatures
import numpy as np
import pytest
from test_docs import ROOT, commands

from keras_seg.data import prepare
from keras_seg.data.prepared import open_prepared

PAGE = ROOT / "docs" / "how-to" / "own-data.md"
LINES = list(commands(PAGE))
PREPARATIONS = [words[1:] for words in LINES if words[0] == "datasets/prepare.py"]


def pair(root, image, mask, number, size=(40, 56)):
    rng = np.random.default_rng(number)
    ids = miniatures.blobs(rng, size, (0, 1))
    photo = miniatures.photo(rng, size) // 2
    photo[ids == 1] += 120
    miniatures.save(photo, root / image)
    if mask:
        miniatures.save(ids * (1 if "clips" in str(root) else 255), root / mask)


def generate(root):
    """The folders that the page's commands name."""
    for k in range(10):
        pair(root / "mine", f"images/{k}.jpg", f"masks/{k}_mask.png", k)
        pair(root / "scans", f"photos/raw/{k}.tif", f"drawn/{k}_m.png", k)
        name = f"clip{k // 3}_{k}"
        pair(root / "clips", f"images/{name}.png", f"labels/{name}.png", k)
        pair(root / "labelled", f"{k}.jpg", "", k)
        shapes = [
            {"label": label, "points": [[k, 2], [30, 5 * j], [9, 30]]}
            for j, label in enumerate(("cat", "dog", "blurred"), 2)
        ]
        file = {"shapes": shapes, "imageHeight": 40, "imageWidth": 56}
        (root / "labelled" / f"{k}.json").write_text(json.dumps(file))
    pair(root, "photo.jpg", "", 11, size=(90, 70))


@pytest.fixture
def place(tmp_path, monkeypatch):
    generate(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_preparations(place, capsys):
    assert len(PREPARATIONS) == 6
    for words in PREPARATIONS:
        assert prepare.main(words) == 0, words
    printed = capsys.readouterr().out
    assert "found: images and masks, masks NAME_mask of images NAME" in printed
    assert "classes in train: background " in printed
    for name in ("mine", "scans", "clips", "labelled"):
        folder = open_prepared(f"datasets/prepared/{name}")
        assert (folder.counts("train").pixels > 0).all(), name
    assert folder.labels.names == ("background", "animal")
    assert folder.counts("train").ignored > 0  # blurred
    clips = open_prepared("datasets/prepared/clips")
    groups = [set(clips.sequences(split).values()) for split in clips.splits]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 4


@pytest.mark.slow
def test_training_and_what_follows(place):
    """With fewer steps, smaller images and the smallest scale."""
    assert prepare.main(PREPARATIONS[0]) == 0
    smaller = {"5000": "2", "256": "64", "bench": "smoke"}
    for words in LINES:
        if words[0] == "datasets/prepare.py":
            continue
        script, *rest = (smaller.get(word, word) for word in words)
        command = [sys.executable, str(ROOT / script), *rest]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    assert Path("predicted").is_dir()
    assert Path("runs/mine-weighting").is_dir()
