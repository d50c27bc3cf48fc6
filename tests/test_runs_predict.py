"""Prediction of own pictures, at their own size, with a run or an export."""

import importlib
import shutil
from types import SimpleNamespace

import cv2
import evaluate as evaluate_command
import miniature_net
import miniatures
import numpy as np
import predict as command
import pytest
from miniatures import blobs, photo, save
from PIL import Image, ImageOps
from random_runs import build, expected_logits, keep_as_run

import keras_seg
from keras_seg import backend, class_weights, command_line, storage
from keras_seg.config import Config
from keras_seg.data.folder import prepare as prepare_folder
from keras_seg.data.images import resize_image
from keras_seg.data.prepared import open_prepared, read_image, read_label
from keras_seg.data.writer import NewSample, Options, write_prepared
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import LabelSpec
from keras_seg.runs import executors
from keras_seg.runs import folder as run_folder
from keras_seg.runs import pictures as drawing
from keras_seg.runs.export import export
from keras_seg.runs.predict_files import predict_files
from keras_seg.runs.train import evaluate

with miniature_net.known():
    CONFIG = Config(
        net={"name": miniature_net.NAME, "preprocess": "imagenet"},
        data={"size": (24, 40)},
        loss={"weights": "w1", "strategy": "direct", "direct_at_inference": True},
        steps=1,
    )
    # Its random generators are numbered by what was built before in the process.
    WITH_DROPOUT = Config(
        net={"name": miniature_net.NAME, "dropout": 0.2},
        data={"size": (32, 64)},
        steps=1,
    )


@pytest.fixture(scope="module", autouse=True)
def _miniature():
    with miniature_net.known():
        yield


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    keep_as_run(CONFIG, shapes, folder)
    return folder


def test_a_run_predicts_with_the_convolutions_of_its_training(run, monkeypatch):
    if backend.name() != "tensorflow":
        pytest.skip("of TensorFlow")
    nn = importlib.import_module("keras.src.backend.tensorflow.nn")
    kept = nn.conv
    monkeypatch.setattr(nn, "conv", getattr(kept, "native", kept))
    keras_seg.load(run)
    keras_seg.predict(run, np.zeros((24, 40, 3), np.uint8))
    assert hasattr(nn.conv, "native")


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


def test_an_export_predicts_what_the_run_does(run, model, pictures):
    exported = keras_seg.load(export(run, threads=2, images=1))
    assert exported.labels.names == model.labels.names
    assert exported.labels.palette == model.labels.palette
    assert exported.size == model.size == (24, 40)
    for picture in pictures:
        ids = exported.predict(picture)
        _, is_clear = expected_ids(run, picture)
        np.testing.assert_array_equal(ids[is_clear], model.predict(picture)[is_clear])


def test_photographs_are_letterboxed_wherever_they_are_predicted(tmp_path):
    """By a run, its export, the files' command, and where it is scored."""
    rng = np.random.default_rng(8)
    for number, size in enumerate(((30, 60), (64, 30), (45, 44), (30, 60))):
        label = blobs(rng, size, range(3))
        image = photo(rng, size)
        save(image, tmp_path / f"raw/images/val/{number}.png")
        save(label, tmp_path / f"raw/labels/val/{number}.png")
        save(image[::-1], tmp_path / f"raw/images/train/{number}.png")
        save(label[::-1], tmp_path / f"raw/labels/train/{number}.png")
    prepared, _ = prepare_folder(
        tmp_path / "raw", tmp_path / "data", Options(), "a,b,c"
    )
    assert prepared.fit == "letterbox"
    config = CONFIG.changed(data={"fit": prepared.fit})
    keep_as_run(config, prepared.folder, tmp_path / "run")
    model = keras_seg.load(tmp_path / "run")
    exported = keras_seg.load(export(tmp_path / "run", threads=2, images=1))
    files = [sample.image for sample in prepared.samples("val")]
    predict_files(model, files, tmp_path / "out", outputs=("ids",))
    counts = np.zeros((3, 3), int)
    for sample in prepared.samples("val"):
        picture, label = read_image(sample.image), read_label(sample.label)
        logits = expected_logits(tmp_path / "run", pillow_box(picture)[None])[0]
        height, width = pillow_inside(picture)
        large = cv2.resize(
            logits[:height, :width].astype("float32"), picture.shape[1::-1]
        )
        two = np.sort(large, -1)[..., -2:]
        is_clear = two[..., 1] - two[..., 0] > 1e-3
        assert is_clear.mean() > 0.9
        with Image.open(tmp_path / "out" / f"{sample.id}_ids.png") as written:
            for ids in (model(picture), exported(picture), np.array(written)):
                np.testing.assert_array_equal(ids[is_clear], large.argmax(-1)[is_clear])
        np.add.at(counts, (label, large.argmax(-1)), 1)
    scored = keras_seg.evaluate(tmp_path / "run", full_size=True)
    apart = np.abs(np.array(scored["confusion"]) - counts).sum()
    assert apart < 0.02 * counts.sum()


def pillow_inside(picture):
    size = ImageOps.contain(Image.fromarray(picture), (40, 24)).size
    return size[::-1]


def pillow_box(picture):
    how = {"method": Image.Resampling.BILINEAR, "centering": (0, 0)}
    return np.asarray(ImageOps.pad(Image.fromarray(picture), (40, 24), **how, color=0))


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


def test_other_data_are_scored_with_the_class_weights_of_the_run(
    run, shapes, tmp_path, capsys
):
    copied = shutil.copytree(run, tmp_path / "run")
    counts = (("train", 1), ("val", 2), ("test", 5))
    other = open_prepared(miniatures.shapes(tmp_path / "other", counts))
    weighed = [
        class_weights.inverse_frequency(data.counts("train").pixels)
        for data in (open_prepared(shapes), other)
    ]
    images = np.stack([read_image(one.image) for one in other.samples("test")])
    truth = np.stack([read_label(one.label) for one in other.samples("test")])
    logits = expected_logits(run, images)
    confusions = []
    for weights in weighed:
        found = (logits / weighed[0] * weights).argmax(-1)
        pairs = truth[truth < 255] * 4 + found[truth < 255]
        confusions.append(np.bincount(pairs, minlength=16).reshape(4, 4).tolist())
    assert confusions[0] != confusions[1]
    result = evaluate(copied, other.folder, "test", 2)
    assert result["confusion"] == confusions[0]
    storage.write_json(copied / "environment.json", {"data": str(tmp_path / "gone")})
    with pytest.raises(UsageError, match="class weights of its data.*put.*back"):
        evaluate(copied, other.folder, "test", 2)


def test_the_background_stays_as_it_is_in_an_overlay(pictures):
    image = pictures[1]
    ids = np.zeros(image.shape[:2], np.uint8)
    ids[5:, 3:] = 1
    colours = ((9, 9, 9), (200, 30, 31))
    named = LabelSpec(("background", "cat"), colours)
    painted = drawing.overlay(image, ids, named)
    np.testing.assert_array_equal(painted[ids == 0], image[ids == 0])
    mean = (image[6, 4].astype(int) + (200, 30, 31)) // 2
    np.testing.assert_array_equal(painted[6, 4], mean)
    painted = drawing.overlay(image, ids, LabelSpec(("sky", "cat"), colours))
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
    names = ["a_ids.png", "a_overlay.png", "areas.csv", "b_ids.png", "b_overlay.png"]
    listed = (path.name for path in out.iterdir() if path.name != ".lock")
    assert sorted(listed) == [*names, "prediction.json"]
    with Image.open(out / "a_ids.png") as image:
        assert (image.mode, image.size) == ("P", (90, 60))
        ids = np.array(image)
        assert image.getpalette()[:12] == [*np.ravel(model.labels.palette)]
    np.testing.assert_array_equal(ids, model.predict(pictures[0]))
    with Image.open(out / "a_overlay.png") as image:
        painted = np.array(image)[:60, :90]  # above the legend
    expected = drawing.overlay(pictures[0], ids, model.labels)
    np.testing.assert_array_equal(painted, expected)
    assert command_line.run(command.main, arguments) == 3  # the broken one again
    assert capsys.readouterr().out.endswith("(2 were done before)\n")


def test_no_result_replaces_a_file_that_is_there(model, run, pictures, tmp_path):
    (tmp_path / "sub").mkdir()
    places = ("a.png", "sub/a.png", "a_ids.png", "b.png")
    a, same, ids, b = (tmp_path / place for place in places)
    for file in (a, same, ids, b):
        save(pictures[1], file)
    with pytest.raises(UsageError, match="a_ids.png exists already; --force"):
        predict_files(model, [a], tmp_path)
    with pytest.raises(UsageError, match="Two pictures are called a"):
        predict_files(model, [a, same], tmp_path / "new")
    with pytest.raises(UsageError, match="is one of the pictures"):
        predict_files(model, [ids, a], tmp_path, force=True)
    with pytest.raises(UsageError, match="is a file"):
        predict_files(model, [a], b / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "b_overlay.png").write_text("old")
    assert predict_files(model, [b], tmp_path, force=True).errors == ()
    assert (tmp_path / "b_overlay.png").read_bytes()[:4] == b"\x89PNG"


def test_every_option_of_the_command_reaches_the_prediction(run, pictures, tmp_path):
    save(pictures[0], tmp_path / "a.png")
    out = tmp_path / "out"
    words = ["--outputs", "ids,probabilities", "--flip", "--scale", "0.5", "--batch", 2]
    words += ["--with", run, "--tile", 32, 64, "--overlap", 16, "--shard", "1/1"]
    words += ["--workers", 1, "--threads", 2, "--force", "--no-legend"]
    arguments = [*map(str, (run, tmp_path / "a.png", "--out", out, *words))]
    assert command_line.run(command.main, arguments) == 0
    tiles = {"scale": 0.5, "tile": (32, 64), "overlap": 16}
    both = keras_seg.load([run, run], flip=True, **tiles)
    found = np.load(out / "a_probabilities.npy")
    np.testing.assert_allclose(found, both.probabilities(pictures[0]), atol=1e-3)


def test_jobs_share_the_pictures(run, model, pictures, tmp_path, capsys, monkeypatch):
    started = []

    class Process:  # in this process
        def __init__(self, words):
            assert words[:3] == ["-m", "keras_seg", "predict"]
            started.append(words)
            self.code = command_line.run(command.main, words[3:])

        def wait(self):
            return self.code

    monkeypatch.setattr(executors, "local", Process)
    for number, picture in enumerate(pictures):
        save(picture, tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "9.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    arguments = [*map(str, (run, tmp_path / "photos", "--out", out, "--jobs", 2))]
    assert command_line.run(command.main, arguments) == 3
    shards = [words[words.index("--shard") + 1] for words in started]
    assert shards == ["1/2", "2/2"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"predicted: 3 pictures, in {out}"
    with open(out / "areas.csv") as table:
        assert [line.partition(",")[0] for line in table] == ["picture", "0", "1", "2"]
    for number, picture in enumerate(pictures):
        with Image.open(out / f"{number}_ids.png") as ids:
            np.testing.assert_array_equal(np.array(ids), model(picture))
    assert not list(out.glob(".shard*"))
    failing = SimpleNamespace(wait=lambda: 137)
    monkeypatch.setattr(executors, "local", lambda words: failing)
    assert command_line.run(command.main, [*arguments, "--force"]) == 137
    assert "2 of 2 processes failed" in capsys.readouterr().err
    assert command_line.run(command.main, [*arguments, "--shard", "1/2"]) == 2


@pytest.fixture(scope="module")
def withheld(tmp_path_factory):
    """A prepared folder whose test images have no labels."""
    rng = np.random.default_rng(8)
    void = np.full((30, 50), 255, np.uint8)
    samples = [
        NewSample(split, f"{split}{k}", photo(rng, (30, 50)), label)
        for k in range(2)
        for split, label in (
            ("train", blobs(rng, (30, 50), range(4))),
            ("val", blobs(rng, (30, 50), range(4))),
            ("test", void),
        )
    ]
    labels = LabelSpec(
        ("a", "b", "c", "d"), ((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4))
    )
    out = tmp_path_factory.mktemp("data") / "withheld"
    write_prepared(out, "withheld", labels, samples, lambda s: [s], Options(), {})
    return out


def test_the_predictions_of_a_split_are_saved_with_or_without_labels(
    withheld, tmp_path, capsys
):
    run = tmp_path / "run"
    keep_as_run(
        Config(net=miniature_net.NAME, data={"size": (24, 40)}, steps=1), withheld, run
    )
    model = keras_seg.load(run)
    for split, ends in (
        ("test", "test has no labels, so there are no scores."),
        ("val", ""),
    ):
        arguments = [str(run), "--split", split, "--save"]
        assert command_line.run(evaluate_command.main, arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        place = run / "evaluation" / f"{split}-predictions"
        assert f"predicted: {split}, in {place}" in lines
        assert lines[-1] == ends or lines[-1].startswith("val: mIoU")
        for name in (f"{split}0", f"{split}1"):
            with Image.open(place / f"{name}_ids.png") as ids:
                image = withheld / "images" / split / f"{name}.png"
                np.testing.assert_array_equal(np.array(ids), model(image))
    assert (run / "evaluation" / "val.json").is_file()
    assert not (run / "evaluation" / "test.json").exists()
    arguments = [str(run), "--split", "test", "--save", str(tmp_path / "mine")]
    assert command_line.run(evaluate_command.main, arguments) == 0
    assert (tmp_path / "mine" / "test0_overlay.png").is_file()
    assert command_line.run(evaluate_command.main, [str(run), "--split", "test"]) == 3
    assert "no labelled pixel" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shard", "3/2"], "--shard: '3/2' must be I/N"),
        (["--engine", "abacus"], "--engine: invalid choice: 'abacus'"),
        (["--outputs", "ids,legs"], "no output 'legs'. Outputs: ids, colour"),
    ],
)
def test_a_wrong_option_is_named(words, message, run, pictures, tmp_path, capsys):
    save(pictures[0], tmp_path / "a.png")
    arguments = [*map(str, (run, tmp_path / "a.png", "--out", tmp_path / "out"))]
    assert command_line.run(command.main, [*arguments, *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# A network with convolutions, pooling and upsampling, as they are: what it sees is
# measured with a single pixel that differs.
SMALL = Config(
    net={
        "name": "hourglass",
        **{"stacks": 1, "depth": 1, "features": 8, "stem": 4, "stem_stride": 2},
    },
    data={"size": (32, 64)},
    steps=1,
)


def test_tiles_of_a_network_are_the_whole_where_it_sees_no_further(shapes, tmp_path):
    keep_as_run(SMALL, shapes, tmp_path / "run")
    picture = np.random.default_rng(7).integers(0, 256, (84, 310, 3), np.uint8)
    whole = keras_seg.load(tmp_path / "run", scale=1)
    expected = whole.probabilities(picture)
    changed = picture.copy()
    changed[40, 150] = 255 - changed[40, 150]
    rows, columns = np.nonzero(np.abs(whole.probabilities(changed) - expected).max(-1))
    reach = max(np.abs(rows - 40).max(), np.abs(columns - 150).max())
    assert 10 < reach < 60
    overlap = 2 * (int(reach) + 8)  # and what a step of the network's stride adds
    tile = (96, overlap + 48)
    tiled = keras_seg.load(tmp_path / "run", scale=1, tile=tile, overlap=overlap)
    found = tiled.probabilities(picture)
    assert tiled.sizes((84, 310)) is None
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    apart = keras_seg.load(tmp_path / "run", scale=1, tile=tile, overlap=0)
    assert np.abs(apart.probabilities(picture) - expected).max() > 1e-3


def test_a_missing_picture_is_named(model, tmp_path):
    with pytest.raises(DataError, match="gone.png"):
        model.predict(tmp_path / "gone.png")
