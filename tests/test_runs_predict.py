"""Prediction of own pictures, at their own size, with a run or an export."""

import shutil

import cv2
import numpy as np
import predict as command
import pytest
from miniatures import save
from PIL import Image
from random_runs import build, expected_logits, keep_as_run

import keras_seg
from keras_seg import command_line
from keras_seg.config import Config
from keras_seg.data.images import resize_image
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import LabelSpec
from keras_seg.runs import folder as run_folder
from keras_seg.runs import predict as prediction
from keras_seg.runs.export import export

CONFIG = Config(
    net={"name": "segnet_basic", "preprocess": "imagenet"},
    data={"size": (24, 40)},
    loss={"weights": "w1", "strategy": "direct", "direct_at_inference": True},
    steps=1,
)
# Its random generators are numbered by what was built before in the process.
WITH_DROPOUT = Config(
    net={
        "name": "hourglass",
        **{"stacks": 1, "depth": 1, "features": 8, "stem": 4, "dropout": 0.2},
    },
    data={"size": (32, 64)},
    steps=1,
)


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    keep_as_run(CONFIG, shapes, folder)
    return folder


def test_a_run_keeps_the_colours_of_its_classes(run, shapes, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    labels = LabelSpec(
        ("ground", "left", "right", "absent"),
        ((1, 2, 3), (4, 5, 6), (7, 8, 9), (0, 1, 0)),
        ((1, 2),),
    )
    run_folder.write_labels(moved, labels)
    (moved / "environment.json").write_text('{"data": "/nowhere"}')
    assert keras_seg.load(moved, data=shapes).labels == labels


@pytest.fixture(scope="module")
def model(run):
    return keras_seg.load(run)


@pytest.fixture(scope="module")
def pictures():
    """Larger, smaller, upright: none of the run's size."""
    rng = np.random.default_rng(2)
    shapes = ((60, 90), (17, 23), (50, 20))
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]


def expected_ids(run, picture):
    """(class ids, where they are clear) by OpenCV's bilinear resizing."""
    logits = expected_logits(run, resize_image(picture, (24, 40))[None])[0]
    size = picture.shape[1::-1]
    planes = np.moveaxis(logits.astype("float32"), -1, 0)
    large = np.stack([cv2.resize(np.ascontiguousarray(p), size) for p in planes], -1)
    two = np.sort(large, -1)[..., -2:]
    return large.argmax(-1), two[..., 1] - two[..., 0] > 1e-3


def test_ids_are_those_of_the_resized_logits_at_each_own_size(model, run, pictures):
    found = model.predict(pictures)
    for picture, ids in zip(pictures, found):
        expected, is_clear = expected_ids(run, picture)
        assert (ids.dtype, ids.shape) == (np.uint8, picture.shape[:2])
        assert is_clear.mean() > 0.9
        np.testing.assert_array_equal(ids[is_clear], expected[is_clear])
    assert len(np.unique(found[0])) > 1
    np.testing.assert_array_equal(model.predict(pictures[0]), found[0])
    of_pillow = model.predict(Image.fromarray(pictures[0]))
    np.testing.assert_array_equal(of_pillow, found[0])


def test_few_classes_at_a_time_give_the_same_ids(monkeypatch):
    logits = np.random.default_rng(0).normal(size=(5, 7, 11)).astype("float32")
    logits[..., 7] = logits[..., 2]  # of equal ones the first is chosen
    whole = prediction.ids_at(logits, (40, 30))
    monkeypatch.setattr(prediction, "RESIZED_VALUES", 3 * 40 * 30)
    np.testing.assert_array_equal(prediction.ids_at(logits, (40, 30)), whole)


def test_an_export_predicts_what_the_run_does(run, model, pictures):
    exported = keras_seg.load(export(run, threads=2, images=1))
    assert exported.labels.names == model.labels.names
    assert exported.labels.palette == model.labels.palette
    assert exported.size == model.size == (24, 40)
    for picture in pictures:
        ids = exported.predict(picture)
        _, is_clear = expected_ids(run, picture)
        np.testing.assert_array_equal(ids[is_clear], model.predict(picture)[is_clear])


def test_a_file_is_turned_as_its_exif_orientation_says(model, pictures, tmp_path):
    stored = pictures[0]  # what the camera's sensor held; shown a quarter turn right
    exif = Image.Exif()
    exif[274] = 6
    save(stored, tmp_path / "turned.png", exif=exif)
    expected = model.predict(np.rot90(stored, -1).copy())
    np.testing.assert_array_equal(model.predict(tmp_path / "turned.png"), expected)
    np.testing.assert_array_equal(
        keras_seg.predict(model, str(tmp_path / "turned.png")), expected
    )


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4), np.uint8), "4, 4"),
        (np.zeros((4, 4, 4), np.uint8), "RGB"),
        (np.zeros((0, 4, 3), np.uint8), "0, 4, 3"),
        (Image.new("L", (4, 5)), "5, 4"),
        (3, "RGB"),
        ([None], "RGB"),
    ],
)
def test_other_arrays_are_refused(model, image, message):
    with pytest.raises(UsageError, match=message):
        model.predict(image)


def test_what_cannot_be_loaded_is_named(tmp_path, run, shapes):
    with pytest.raises(UsageError, match="neither a training run .* nor an export"):
        keras_seg.load(tmp_path)
    with pytest.raises(UsageError, match="keras.models.load_model, after import ker"):
        keras_seg.load(tmp_path / "mine.keras")
    moved = tmp_path / "run"
    moved.mkdir()
    (moved / "best").symlink_to(run / "best")
    (moved / "environment.json").write_text('{"data": "/nowhere"}')
    with pytest.raises(UsageError, match="class weights .* Name the prepared folder"):
        keras_seg.load(moved)
    assert keras_seg.load(moved, data=shapes).labels.names[0] == "ground"


def test_a_moved_run_predicts_without_its_data_whatever_was_built_before(
    shapes, tmp_path, pictures
):
    keep_as_run(WITH_DROPOUT, shapes, tmp_path / "run")
    first = keras_seg.predict(tmp_path / "run", pictures[0])
    (tmp_path / "run" / "environment.json").write_text('{"data": "/nowhere"}')
    build(WITH_DROPOUT, 4)
    moved = keras_seg.load(str(tmp_path / "run"))
    np.testing.assert_array_equal(moved.predict(pictures[0]), first)
    assert moved.labels.names == ("ground", "left", "right", "absent")
    assert len(set(moved.labels.palette)) == 4


def test_the_background_stays_as_it_is_in_an_overlay(pictures):
    image = pictures[1]
    ids = np.zeros(image.shape[:2], np.uint8)
    ids[5:, 3:] = 1
    colours = ((9, 9, 9), (200, 30, 31))
    named = LabelSpec(("background", "cat"), colours)
    painted = prediction.overlay(image, ids, named)
    np.testing.assert_array_equal(painted[ids == 0], image[ids == 0])
    mean = (image[6, 4].astype(int) + (200, 30, 31)) // 2
    np.testing.assert_array_equal(painted[6, 4], mean)
    painted = prediction.overlay(image, ids, LabelSpec(("sky", "cat"), colours))
    np.testing.assert_array_equal(painted[0, 0], (image[0, 0].astype(int) + 9) // 2)


def test_files_become_ids_and_overlays(model, run, pictures, tmp_path, capsys):
    files = [tmp_path / name for name in ("a.png", "broken.jpg", "b.png")]
    for file, picture in zip(files, pictures):
        save(picture, file)
    files[1].write_bytes(b"\xff\xd8\xff no more")
    out = tmp_path / "new" / "out"
    arguments = [*map(str, (run, *files, "--out", out))]
    assert command_line.run(command.main, arguments) == 3
    captured = capsys.readouterr()
    assert "broken.jpg" in captured.err
    assert captured.out == f"predicted: 2 pictures, in {out}\n"
    names = ["a_ids.png", "a_overlay.png", "b_ids.png", "b_overlay.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    with Image.open(out / "a_ids.png") as image:
        assert (image.mode, image.size) == ("P", (90, 60))
        ids = np.array(image)
        assert image.getpalette()[:12] == [*np.ravel(model.labels.palette)]
    np.testing.assert_array_equal(ids, model.predict(pictures[0]))
    with Image.open(out / "a_overlay.png") as image:
        painted = np.array(image)
    expected = prediction.overlay(pictures[0], ids, model.labels)
    np.testing.assert_array_equal(painted, expected)


def test_no_result_replaces_a_file_that_is_there(run, pictures, tmp_path):
    (tmp_path / "sub").mkdir()
    places = ("a.png", "sub/a.png", "a_ids.png", "b.png")
    a, same, ids, b = (tmp_path / place for place in places)
    for file in (a, same, ids, b):
        save(pictures[1], file)
    with pytest.raises(UsageError, match="a_ids.png exists already; --force"):
        prediction.predict_files(run, [a], tmp_path)
    with pytest.raises(UsageError, match="Two pictures are called a"):
        prediction.predict_files(run, [a, same], tmp_path / "new")
    with pytest.raises(UsageError, match="is one of the pictures"):
        prediction.predict_files(run, [ids, a], tmp_path, force=True)
    with pytest.raises(UsageError, match="is a file"):
        prediction.predict_files(run, [a], b / "new")
    with pytest.raises(UsageError, match="neither a training run"):
        prediction.predict_files(tmp_path, [a], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "b_overlay.png").write_text("old")
    assert prediction.predict_files(run, [b], tmp_path, force=True) == []
    assert (tmp_path / "b_overlay.png").read_bytes()[:4] == b"\x89PNG"


def test_a_missing_picture_is_named(model, tmp_path):
    with pytest.raises(DataError, match="gone.png"):
        model.predict(tmp_path / "gone.png")
