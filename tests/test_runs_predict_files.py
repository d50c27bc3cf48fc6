"""Files of predictions: which, what is in them, what is skipped, refused, resumed."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from miniatures import photo, save
from PIL import Image

from keras_seg import storage
from keras_seg.errors import DataError, LockedError, UsageError
from keras_seg.labels import LabelSpec
from keras_seg.runs import pictures, predict_files
from keras_seg.runs.predict import Member, Options, Predictor

LABELS = LabelSpec(
    ("background", "left arm", "right arm", "hat"),
    ((0, 0, 0), (200, 30, 30), (30, 30, 200), (240, 240, 20)),
    ((1, 2),),
)
SIZE = (24, 40)
COLOURS = np.array([[9, 9, 9], [250, 0, 0], [0, 0, 250], [200, 200, 0]], "float32")


def blurred_distance(images: np.ndarray) -> np.ndarray:
    """Logits of a "network": how near each pixel's blurred colour is to a class's."""
    soft = np.stack([cv2.blur(image, (3, 3)) for image in images])
    apart = soft[..., None, :].astype("float32") - COLOURS
    return -np.square(apart).sum(-1) / 1e4


def member(network=blurred_distance, labels=LABELS, size=SIZE, weights="w", stride=4):
    return Member(Path("a run"), labels, size, stride, weights, lambda _: network)


@pytest.fixture
def model():
    return Predictor([member()])


@pytest.fixture
def folder(tmp_path):
    """Photographs of three sizes, one of them below another folder."""
    rng = np.random.default_rng(0)
    for name, size in (
        ("a.png", (60, 90)),
        ("b.jpg", (17, 23)),
        ("sub/c.png", (50, 20)),
    ):
        picture = cv2.resize(rng.integers(0, 256, (4, 5, 3), np.uint8), size[::-1])
        save(picture, tmp_path / "photos" / name)
    return tmp_path / "photos"


def areas(out: Path) -> dict[tuple[str, str], list[int]]:
    with open(out / "areas.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["picture", "frame", "height", "width", *LABELS.names]
    return {(row[0], row[1]): [int(value) for value in row[2:]] for row in rows}


def written(out: Path) -> set[str]:
    return {
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_every_output_says_the_same_at_the_size_of_its_picture(model, folder, tmp_path):
    out = tmp_path / "out"
    found = predict_files.predict_files(
        model, [folder], out, outputs=tuple(predict_files.OUTPUTS)
    )
    assert (found.predicted, found.skipped, found.errors) == (3, 0, ())
    table = areas(out)
    assert list(table) == [("a", ""), ("b", ""), ("sub/c", "")]
    for name, file in (("a", "a.png"), ("b", "b.jpg"), ("sub/c", "sub/c.png")):
        image = pictures.pixels(folder / file)
        expected = model.predict(image)
        height, width = expected.shape
        assert table[name, ""][:2] == [height, width]
        assert (
            table[name, ""][2:] == np.bincount(expected.ravel(), minlength=4).tolist()
        )
        with Image.open(out / f"{name}_ids.png") as ids:
            assert ids.mode == "P"
            assert ids.getpalette()[:12] == [*np.ravel(LABELS.palette)]
            np.testing.assert_array_equal(np.array(ids), expected)
        colour = np.array(Image.open(out / f"{name}_colour.png"))
        np.testing.assert_array_equal(colour, np.array(LABELS.palette)[expected])
        overlay = np.array(Image.open(out / f"{name}_overlay.png"))
        mean = (image.astype(int) + np.array(LABELS.palette)[expected]) // 2
        mean[expected == 0] = image[expected == 0]
        assert overlay.shape[0] > height  # the legend
        np.testing.assert_array_equal(overlay[:height, :width], mean)
        found = np.load(out / f"{name}_probabilities.npy")
        assert (found.dtype, found.shape) == (np.float16, (height, width, 4))
        np.testing.assert_allclose(found, model.probabilities(image), atol=1e-3)
        np.testing.assert_allclose(found.astype("float64").sum(-1), 1, atol=2e-3)
    record = storage.read_json(out / "prediction.json")
    assert record["classes"] == list(LABELS.names)
    assert record["models"] == ["a run"]


def test_a_folder_is_done_once_and_only_what_is_new_after_that(
    model, folder, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    predict_files.predict_files(model, [folder], out)
    before = {name: (out / name).stat().st_mtime_ns for name in written(out)}
    save(photo(np.random.default_rng(1), (30, 30)), folder / "d.png")
    found = predict_files.predict_files(model, [folder], out)
    assert (found.predicted, found.skipped) == (1, 3)
    after = {name: (out / name).stat().st_mtime_ns for name in before}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"areas.csv", "prediction.json"}
    assert list(areas(out)) == [("a", ""), ("b", ""), ("sub/c", ""), ("d", "")]
    (out / "b_ids.png").unlink()
    assert predict_files.predict_files(model, [folder], out).predicted == 1
    assert (out / "b_ids.png").is_file()
    assert list(areas(out)) == [("a", ""), ("sub/c", ""), ("d", ""), ("b", "")]
    assert len((out / "areas.csv").read_text().splitlines()) == 5


def test_a_table_of_the_users_is_not_added_to(model, folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "areas.csv").write_text("field,hectares\n1,2\n")
    with pytest.raises(UsageError, match="areas.csv exists already; --force"):
        predict_files.predict_files(model, [folder], out)
    assert written(out) == {"areas.csv"}
    predict_files.predict_files(model, [folder], out, force=True)
    assert len(areas(out)) == 3


@pytest.mark.parametrize("cut", [0, 9], ids=["between rows", "within a row"])
def test_a_killed_call_is_resumed(model, folder, tmp_path, cut):
    whole, out = tmp_path / "whole", tmp_path / "out"
    for place in (whole, out):
        predict_files.predict_files(model, [folder], place)
    lines = (out / "areas.csv").read_text().splitlines(keepends=True)
    (out / "areas.csv").write_text("".join(lines[:2]) + lines[2][:cut])
    (out / "sub" / "c_ids.png").unlink()
    (out / "b_overlay.png").write_bytes(b"half of it")
    (out / ".tmp-1-b_ids.png").write_bytes(b"half of it")
    found = predict_files.predict_files(model, [folder], out)
    assert (found.predicted, found.skipped) == (2, 1)
    assert written(out) == written(whole)
    assert not (out / ".tmp-1-b_ids.png").exists()
    for name in written(whole):
        if name != "prediction.json":
            assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_results_of_another_model_or_with_other_options_are_kept(
    model, folder, tmp_path
):
    out = tmp_path / "out"
    predict_files.predict_files(model, [folder], out)
    before = (out / "a_ids.png").read_bytes()
    other = Predictor([member(lambda images: -blurred_distance(images), weights="v")])
    flipped = Predictor([member()], Options(flip=True))
    for predictor, options, message in (
        (other, {}, "predictions of another model. Name another folder .* --force"),
        (flipped, {}, "predictions with other options"),
        (model, {"outputs": ("ids",)}, "with other outputs"),
        (model, {"legend": False}, "with other legend"),
    ):
        with pytest.raises(UsageError, match=message):
            predict_files.predict_files(predictor, [folder], out, **options)
    assert (out / "a_ids.png").read_bytes() == before
    found = predict_files.predict_files(other, [folder], out, force=True)
    assert (found.predicted, found.skipped) == (3, 0)
    assert (out / "a_ids.png").read_bytes() != before
    assert len(areas(out)) == 3


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_done(
    model, folder, tmp_path
):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    found = predict_files.predict_files(model, [folder], tmp_path / "out")
    assert found.predicted == 3
    assert [str(folder / "broken.jpg") in str(error) for error in found.errors] == [
        True
    ]
    assert isinstance(found.errors[0], DataError)
    assert not [name for name in written(tmp_path / "out") if "broken" in name]


def test_pictures_of_16_bits_are_brought_to_8_as_in_training(tmp_path):
    deep = np.random.default_rng(0).integers(0, 1200, (30, 40), np.uint16)
    save(deep, tmp_path / "deep.png")
    grey = (deep.astype(float) - 100).clip(0, 900) * 255 / 900
    expected = np.repeat(grey[..., None], 3, -1)
    model = Predictor([replace(member(), levels=(100, 1000))])
    assert np.abs(model.read(tmp_path / "deep.png") - expected).max() <= 1
    np.testing.assert_array_equal(
        Predictor([member()]).read(tmp_path / "deep.png")[..., 0], deep >> 8
    )


def test_batches_keep_pictures_apart(folder, tmp_path):
    """Of many sizes at their own scale, in batches of any size."""
    rng = np.random.default_rng(3)
    for number in range(11):
        size = ((33, 41), (20, 50), (33, 41))[number % 3]
        save(photo(rng, size), folder / f"more{number:02d}.png")
    seen = []

    def network(images):
        seen.append(images.shape)
        return blurred_distance(images)

    model = Predictor([member(network)], Options(scale=1))
    predict_files.predict_files(model, [folder], tmp_path / "out", batch=4)
    assert max(shape[0] for shape in seen) > 1
    for file, name in pictures.find([folder]).items():
        expected = model.predict(file)
        with Image.open(tmp_path / "out" / f"{name}_ids.png") as ids:
            np.testing.assert_array_equal(np.array(ids), expected, name)


def test_shards_share_the_work_and_their_tables_are_joined(model, folder, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    predict_files.predict_files(model, [folder], whole)
    counts = [
        predict_files.predict_files(model, [folder], out, shard=(k, 2)).predicted
        for k in (2, 1)
    ]
    assert counts == [1, 2]
    assert not (out / "areas.csv").exists()
    with storage.lock(out / ".shard-2-of-2"), pytest.raises(LockedError):
        predict_files.predict_files(model, [folder], out)
    found = predict_files.predict_files(model, [folder], out)
    assert (found.predicted, found.skipped) == (0, 3)
    assert (out / "areas.csv").read_text() == (whole / "areas.csv").read_text()
    assert written(out) == written(whole)


def test_one_call_at_a_time(model, folder, tmp_path):
    out = tmp_path / "out"
    with storage.lock(out), pytest.raises(LockedError):
        predict_files.predict_files(model, [folder], out)


# What is found


def test_folders_patterns_and_names(folder, tmp_path):
    for name in (".hidden/e.png", "__MACOSX/a.png", "._a.png", "notes.txt", "a.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no picture")
    save(photo(np.random.default_rng(0), (9, 9)), folder / "a.jpeg")
    found = pictures.find([folder])
    names = {str(file.relative_to(folder)): name for file, name in found.items()}
    assert names == {
        **{"a.jpeg": "a.jpeg", "a.png": "a.png", "b.jpg": "b", "sub/c.png": "sub/c"}
    }
    assert list(pictures.find([str(folder / "*.jpg")]).values()) == ["b"]
    assert list(pictures.find([str(folder / "**" / "c.png")]).values()) == ["c"]
    save(photo(np.random.default_rng(0), (9, 9)), tmp_path / "other" / "b.jpg")
    with pytest.raises(UsageError, match="Two pictures are called b"):
        pictures.find([folder, tmp_path / "other"])
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no picture and no video"):
        pictures.find([tmp_path / "none"])
    with pytest.raises(UsageError, match="No file matches"):
        pictures.find([str(folder / "*.bmp")])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_picture_is_turned_as_a_small_one_is(
    orientation, tmp_path, monkeypatch
):
    exif = Image.Exif()
    exif[274] = orientation
    stored = photo(np.random.default_rng(0), (13, 21))
    save(stored, tmp_path / "a.png", exif=exif)
    expected = pictures.pixels(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    np.testing.assert_array_equal(pictures.pixels(tmp_path / "a.png"), expected)


def test_a_picture_beyond_all_memory_is_refused(tmp_path, monkeypatch):
    save(photo(np.random.default_rng(0), (13, 21)), tmp_path / "a.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    monkeypatch.setattr(pictures, "LARGEST", 200)
    with pytest.raises(DataError, match="21 x 13 pixels; 200 are allowed"):
        pictures.pixels(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_a_large_picture_that_lacks_its_end_is_refused(name, tmp_path, monkeypatch):
    save(photo(np.random.default_rng(0), (130, 210)), tmp_path / name)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    assert pictures.pixels(tmp_path / name).shape == (130, 210, 3)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-400])
    with pytest.raises(DataError, match=f"{name} is (truncated at|damaged)"):
        pictures.pixels(tmp_path / name)


# What is drawn and written


@pytest.mark.parametrize("names", [("background", "hat"), ("sky", "a long name of it")])
def test_a_legend_names_the_classes_that_are_there(names):
    labels = LabelSpec(names, ((9, 99, 200), (200, 30, 30)))
    drawn = pictures.legend(np.array([960, 40]), labels, (200, 300))
    colours = {tuple(pixel) for pixel in drawn.reshape(-1, 3).tolist()}
    assert (200, 30, 30) in colours
    assert ((9, 99, 200) in colours) == (names[0] == "sky")  # a background has no paint
    assert drawn.shape[1] == 300
    without = pictures.legend(np.array([1000, 0]), labels, (200, 300))
    assert (200, 30, 30) not in {tuple(p) for p in without.reshape(-1, 3).tolist()}
    narrow = pictures.legend(np.array([960, 40]), labels, (200, 20))
    assert narrow.shape[1] > 20


def test_rows_written_in_parts_make_the_whole_png(tmp_path):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (31, 17, 3), np.uint8)
    ids = rng.integers(0, 4, (31, 17), np.uint8)
    for name, array, palette in (("c", colour, None), ("i", ids, LABELS.palette)):
        with open(tmp_path / name, "w+b") as file:
            writer = pictures.PngWriter(file, (1, 17), palette)
            for start, stop in ((0, 1), (1, 30), (30, 31)):
                writer.write(array[start:stop])
            writer.grow(31)
            writer.close()
        with Image.open(tmp_path / name) as image:
            np.testing.assert_array_equal(np.array(image), array)


def test_a_large_overlay_is_the_small_one(model, folder, tmp_path, monkeypatch):
    for place in ("whole", "rows"):
        if place == "rows":
            monkeypatch.setattr(predict_files, "IN_MEMORY", 0)
            monkeypatch.setattr(predict_files, "STRIP", 90 * 3)
            monkeypatch.setattr("keras_seg.runs.predict.BLOCK_VALUES", 4 * 90 * 7)
        predict_files.predict_files(model, [folder / "a.png"], tmp_path / place)
    whole, rows = (
        np.array(Image.open(tmp_path / place / "a_overlay.png"))
        for place in ("whole", "rows")
    )
    np.testing.assert_array_equal(whole[:, :90], rows)  # cut where it is too narrow


# Videos


@pytest.fixture
def video(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "clips" / "walk.mp4"
    path.parent.mkdir()
    rng = np.random.default_rng(0)
    large = [cv2.resize(rng.integers(0, 256, (4, 5, 3), np.uint8), (64, 48))] * 7
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, frame in enumerate(large):
            moved = np.roll(frame, 5 * number, axis=1)
            made = av.VideoFrame.from_ndarray(moved, format="rgb24")
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    return path


def test_a_video_becomes_frames_of_ids_and_a_video(model, video, tmp_path):
    import av

    out = tmp_path / "out"
    found = predict_files.predict_files(
        model, [video.parent], out, outputs=("ids", "colour", "overlay"), batch=3
    )
    assert found.predicted == 7
    frames = list(pictures.frames(video))
    names = sorted(path.name for path in (out / "walk_ids").iterdir())
    assert names == [f"{k:06d}.png" for k in range(1, 8)]
    assert [frame for _, frame in areas(out)] == [str(k) for k in range(1, 8)]
    for name, frame in zip(names, frames):
        with Image.open(out / "walk_ids" / name) as ids:
            np.testing.assert_array_equal(np.array(ids), model.predict(frame))
    with av.open(str(out / "walk_overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate) == (7, 12)
        assert (stream.width, stream.height > 48) == (64, True) or stream.width > 64
    again = predict_files.predict_files(
        model, [video.parent], out, outputs=("ids", "colour", "overlay"), batch=3
    )
    assert (again.predicted, again.skipped) == (0, 1)


def test_a_damaged_video_leaves_nothing(model, video, tmp_path):
    video.write_bytes(video.read_bytes()[:400])
    found = predict_files.predict_files(model, [video], tmp_path / "out")
    assert [str(video) in str(error) for error in found.errors] == [True]
    assert written(tmp_path / "out") == {"prediction.json"}


def test_the_record_is_json_and_says_how(folder, tmp_path):
    model = Predictor([member()], Options(scale=1, tile=(16, 16), overlap=8))
    predict_files.predict_files(model, [folder / "a.png"], tmp_path / "out")
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert record["options"] == {
        **{"flip": False, "size": None, "scale": 1, "tile": [16, 16], "overlap": 8}
    }
