"""tools/aa_studies.py: what it says of trainings that are there."""

import aa_studies
import numpy as np
import pytest

from keras_seg import metrics, storage
from keras_seg.runs import folder


def trainings(out, gains):
    """Trainings on 24 images whose hits grow by the gains of their arms, a, b and c."""
    rng = np.random.default_rng(0)
    truth = rng.integers(50, 90, (24, 4))
    for seed in range(9):
        found = 0.4 + gains[seed // 3] + rng.uniform(-0.1, 0.1, (24, 4))
        hits = (truth * found).astype(int)
        confusions = hits[..., None] * np.eye(4, dtype=int)
        missed = (truth - hits)[..., None] * np.eye(4, dtype=int)
        confusions = confusions + np.roll(missed, 1, axis=-1)
        place = out / f"seed{seed}"
        place.mkdir(parents=True)
        counts = np.stack([metrics.image_counts(one) for one in confusions], axis=1)
        ids = tuple(f"image{k}" for k in range(24))
        path = folder.per_image_file(place, None)
        folder.write_per_image(path, folder.PerImage(ids, *counts))
        record = {"split": "val", "parameters": {"trainable": 9}, "step": 1}
        record |= {"images": 24, "classes": ["a", "b", "c", "d"]}
        record |= metrics.scores(confusions.sum(axis=0), None)
        storage.write_json(place / "metrics.json", record)


@pytest.mark.parametrize(("gains", "false"), [((0, 0, 0), 0), ((0, 0, 0.3), 1)])
def test_leads_that_are_called_clear_are_counted(
    gains, false, shapes, tmp_path, capsys
):
    trainings(tmp_path / "runs", gains)
    words = ["--data", str(shapes), "--out", str(tmp_path / "runs"), "--studies", "1"]
    assert aa_studies.main([*words, "--draws", "2"]) == 0
    printed = capsys.readouterr().out
    assert f"{false} of 1 studies of equal arms call a lead clear." in printed
    assert "of 2 draws of 9 of the 9 trainings do." in printed
    (row,) = storage.read_table(tmp_path / "runs" / "studies.csv")
    assert (row["study"], row["independent images"]) == ("1", "24")
    assert (int(row["clear"]) > 0) == bool(false)
