"""Batches as a pure function of (seed, sample index), in TensorFlow and in NumPy."""

import subprocess
import sys
from pathlib import Path

import cv2
import miniatures
import numpy as np
import pytest
from PIL import Image, ImageOps

from keras_seg import preprocess
from keras_seg.config import Augment
from keras_seg.data import images, pipeline
from keras_seg.data.pipeline import Feed, Samples
from keras_seg.data.prepared import open_prepared, read_image, read_label
from keras_seg.data.writer import NewSample
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import Head, LabelSpec

EVERYTHING = Augment(
    mirror=0.5,
    swap_lr=True,
    scale=(0.5, 2.0),
    rotate=10,
    flip180=0.2,
    balance=0.5,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=0.1,
    blur=1.0,
    noise=3.0,
)


def make_folder(root, sizes, num_classes=5, joints=None):
    """A prepared folder of random images and labels."""
    rng, ids = np.random.default_rng(0), range(num_classes)
    names, palette = (f"class{i}" for i in ids), ((i, i, i) for i in ids)
    labels = LabelSpec(tuple(names), tuple(palette), flip_pairs=((1, 2),))
    samples = []
    for k, size in enumerate(sizes):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        label = rng.choice([*ids, 255], size).astype(np.uint8)
        own = None if joints is None else joints[k]
        samples.append(NewSample("train", f"s{k}", image, label, joints=own))
    return miniatures.publish(root / "folder", "random", labels, samples)


SIZES = [(24, 40), (30, 30), (24, 40), (50, 60), (20, 37), (24, 40), (31, 45)]


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path, SIZES)


@pytest.fixture
def samples(folder):
    return Samples(folder, "train", (24, 40))


def feed(samples, **changes):
    settings = {"batch": 3, "preprocess": "unit", "workers": 2}
    return Feed(samples, **settings | {"heads": {"logits": Head()}} | changes)


def training(samples, start=0, stop=4, *, seed=5, augment=EVERYTHING, **changes):
    changes = {"preprocess": "imagenet"} | changes
    return feed(samples, **changes).training(seed, augment, start, stop)


def evaluation(samples, **changes):
    return feed(samples, **changes).evaluation()


def assert_equal_batches(found, expected):
    for (image, targets), (expected_image, expected_targets) in zip(
        found, expected, strict=True
    ):
        np.testing.assert_array_equal(image, expected_image)
        assert targets.keys() == expected_targets.keys()
        for head, target in targets.items():
            np.testing.assert_array_equal(target, expected_targets[head])


# The order


def test_every_epoch_is_another_permutation():
    orders = [
        [pipeline.sample_at(3, epoch * 50 + place, 50) for place in range(50)]
        for epoch in range(4)
    ]
    for order in orders:
        assert sorted(order) == list(range(50))
    other_seed = [pipeline.sample_at(4, place, 50) for place in range(50)]
    distinct = {tuple(order) for order in [*orders, other_seed, range(50)]}
    assert len(distinct) == 6


def test_every_sample_has_its_own_geometry_and_noise(folder):
    samples = Samples(folder, "train", (24, 40), limit=1)
    images = [
        pipeline.training_sample(samples, seed, index, Augment(noise=5.0))[0]
        for seed in (0, 1)
        for index in range(4)
    ]
    assert len({image.tobytes() for image in images}) == 8


# A sample


@pytest.mark.parametrize("size", [(24, 40), (17, 23), (60, 80), (24, 20), (13, 90)])
def test_samples_are_resized_as_tensorflow_does(folder, size):
    import tensorflow as tf

    samples = Samples(folder, "train", size)
    for k, sample in enumerate(folder.samples("train")):
        resized, label, joints = samples.plain(k)
        assert joints is None
        image = read_image(sample.image)
        expected = tf.image.resize(image, size, antialias=True).numpy()
        # Pillow rounds to whole levels after each of the two axes
        np.testing.assert_allclose(resized, expected, atol=1.01)
        expected = images.resize_label(read_label(sample.label), size)
        np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("size", [(24, 40), (41, 17), (12, 12), (60, 3)])
def test_letterboxed_samples_are_those_of_pillow(folder, size):
    samples = Samples(folder, "train", size, fit="letterbox")
    how, seen = {"method": Image.Resampling.BILINEAR}, set()
    for k, sample in enumerate(folder.samples("train")):
        image, label, _ = samples.plain(k)
        with Image.open(sample.image) as whole:
            fitted = ImageOps.contain(whole, size[::-1], **how)
            padded = ImageOps.pad(
                whole, size[::-1], color=(0,) * 3, **how, centering=(0, 0)
            )
        np.testing.assert_array_equal(image, np.asarray(padded))
        height, width = samples.inside(k)
        assert (width, height) == fitted.size
        expected = np.full(size, 255)
        expected[:height, :width] = images.resize_label(
            read_label(sample.label), (height, width)
        )
        np.testing.assert_array_equal(label, expected)
        seen.add((height, width))
    assert len(seen) > 1


def test_samples_are_kept_in_memory_up_to_the_limit(folder):
    kept = Samples(folder, "train", (24, 40))
    some = Samples(folder, "train", (24, 40), cache_bytes=2 * 24 * 40 * 4)
    expected = [kept.plain(k)[:2] for k in range(len(kept))]
    for k in range(2):
        np.testing.assert_array_equal(some.plain(k)[0], expected[k][0])
    for sample in folder.samples("train"):
        sample.image.unlink()
    for k, arrays in enumerate(expected):
        for found, array in zip(kept.plain(k), arrays):
            np.testing.assert_array_equal(found, array)
            assert not found.flags.writeable
    some.plain(1)
    with pytest.raises(DataError, match="s2.png"):
        some.plain(2)


def test_more_samples_are_kept_while_memory_is_free(folder, monkeypatch):
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 24 * 40 * 4)  # one sample in any case
    monkeypatch.setattr(pipeline, "FREE_CHECKED", 2)
    shares = iter([0.9, 0.2, 0.9])  # the last one comes too late
    monkeypatch.setattr(pipeline, "free_memory", lambda: next(shares))
    samples = Samples(folder, "train", (24, 40))
    assert len(samples) == 7
    for k in range(7):
        samples.plain(k)
    for sample in folder.samples("train"):
        sample.image.unlink()
    for k in range(3):
        samples.plain(k)
    with pytest.raises(DataError, match="s3.png"):
        samples.plain(3)
    assert next(shares) == 0.9


def test_a_limit_takes_samples_from_all_over_the_split(folder):
    samples = Samples(folder, "train", (24, 40), limit=2)
    assert (len(samples), samples.ids) == (2, ("s1", "s5"))  # of 7, two strides of 3.5
    first = Samples(folder, "train", (24, 40), limit=2, choice="first")
    assert first.ids == ("s0", "s1")
    for choice in ("spread", "first"):
        every = Samples(folder, "train", (24, 40), limit=99, choice=choice)
        assert len(every) == 7


@pytest.mark.parametrize("limit", [3, 6, 9])
def test_a_limit_takes_its_share_of_every_sequence(limit, tmp_path):
    """Of interleaved videos of 6, 4 and 2 frames; joints are those of the frames."""
    videos = "abacabbaacab"
    assert [videos.count(name) for name in "abc"] == [6, 4, 2]
    labels = LabelSpec(("x", "y"), ((0, 0, 0), (9, 9, 9)))
    image, label = np.zeros((4, 6, 3), np.uint8), np.eye(4, 6).astype(np.uint8)
    items = [
        NewSample(split, f"{k:02d}", image, label, "png", np.full((24, 2), k / 4), name)
        for split in ("train", "val")
        for k, name in enumerate(videos)
    ]
    prepared = miniatures.publish(tmp_path / "videos", "videos", labels, items)
    samples = Samples(prepared, "val", (4, 6), limit=limit)
    chosen = [int(name) for name in samples.ids]
    assert chosen == sorted(set(chosen))
    for name, frames in zip("abc", (6, 4, 2)):  # rounded up or down
        assert abs(sum(videos[k] == name for k in chosen) - limit * frames / 12) < 1
    visible = [k for k in chosen if k / 4 < 3.5]  # others are below the image
    found = samples.joints[[chosen.index(k) for k in visible], 0, 0]
    np.testing.assert_array_equal(found, [k / 4 for k in visible])


def test_spread_takes_samples_from_the_middle_of_equal_stretches(tmp_path):
    joints = np.arange(7, dtype=np.float32)[:, None, None] * np.ones((1, 24, 2), "f4")
    folder = make_folder(tmp_path, [(24, 40)] * 7, joints=joints)
    samples = Samples(folder, "train", (24, 40), limit=3)
    # Stretches of 7 / 3: the middles are at 1.17, 3.5 and 5.83
    assert samples.ids == ("s1", "s3", "s5")
    np.testing.assert_allclose(samples.joints[:, 0, 0], [1, 3, 5])
    whole = Samples(folder, "train", (24, 40), limit=9)
    assert whole.ids == tuple(f"s{k}" for k in range(7))
    np.testing.assert_array_equal(samples.plain(1)[0], whole.plain(3)[0])


def test_joints_move_with_the_resize(tmp_path):
    joints = np.full((1, 24, 2), 7, np.float32)
    joints[0, :5] = [[0, 0], [39, 23], [-1, 5], [3, 24], [19.5, 11.5]]
    folder = make_folder(tmp_path, [(24, 40)], joints=joints)
    found = Samples(folder, "train", (48, 20)).plain(0)[2]
    # By hand: x' = (x + 1/2) / 2 - 1/2, y' = 2 (y + 1/2) - 1/2; two lie outside
    expected = [[-0.25, 0.5], [19.25, 46.5], [np.nan] * 2, [np.nan] * 2, [9.5, 23.5]]
    np.testing.assert_allclose(found[:5], expected)
    found = Samples(folder, "train", (30, 20), fit="letterbox").plain(0)[2]
    # Half as large in both directions, 12 x 20
    expected = [[-0.25, -0.25], [19.25, 11.25], *[[np.nan] * 2] * 2, [9.5, 5.5]]
    np.testing.assert_allclose(found[:5], expected)


def test_other_joints_than_surreals_are_refused(tmp_path):
    folder = make_folder(tmp_path, [(24, 40)], joints=np.zeros((1, 17, 2), np.float32))
    with pytest.raises(DataError, match="joints of train have shape"):
        Samples(folder, "train", (48, 20))


# Batches


def test_evaluation_goes_through_the_split_once_in_order(samples):
    batches = list(evaluation(samples))
    assert [len(image) for image, _ in batches] == [3, 3, 1]
    found = np.concatenate([image for image, _ in batches])
    labels = np.concatenate([targets["logits"] for _, targets in batches])
    for k in range(7):
        image, label, _ = samples.plain(k)
        np.testing.assert_array_equal(found[k], image / np.float32(255))
        np.testing.assert_array_equal(labels[k], label)
    assert (found.dtype, labels.dtype) == (np.float32, np.uint8)


def test_batches_are_padded_to_the_stride(folder):
    samples = Samples(folder, "train", (24, 40), padded_size=(32, 64))
    assert samples.padded_size == (32, 64)
    plain = evaluation(Samples(folder, "train", (24, 40)), preprocess="bgr_minus_mean")
    padded = evaluation(samples, preprocess="bgr_minus_mean")
    for (image, targets), (inner, inner_targets) in zip(padded, plain):
        end = (0, 0), (0, 8), (0, 24)
        np.testing.assert_array_equal(image, np.pad(inner, (*end, (0, 0))))
        label = np.pad(inner_targets["logits"], end, constant_values=255)
        np.testing.assert_array_equal(targets["logits"], label)
    assert next(iter(training(samples)))[0].shape == (3, 32, 64, 3)


def test_heads_get_the_label_through_their_lookup(samples):
    lookup = (0, 1, 1, 2, 0)
    heads = {"a": Head(), "coarse": Head(lookup=lookup), "b": Head()}
    for _, targets in training(samples, heads=heads):
        np.testing.assert_array_equal(targets["a"], targets["b"])
        for dataset_id, coarse_id in [*enumerate(lookup), (255, 255)]:
            found = targets["coarse"][targets["a"] == dataset_id]
            assert found.size
            assert (found == coarse_id).all()


@pytest.mark.parametrize("swap_lr", [False, True, None])
def test_mirroring_exchanges_left_and_right_unless_told_not_to(samples, swap_lr):
    """The samples have left and right classes, 1 and 2."""
    settings = Augment(mirror=1.0, swap_lr=swap_lr)
    for index in range(7):
        k = pipeline.sample_at(0, index, 7)
        image, label, _ = samples.plain(k)
        found, found_label, _ = pipeline.training_sample(samples, 0, index, settings)
        np.testing.assert_array_equal(found, image[:, ::-1])
        expected = label[:, ::-1].copy()
        if swap_lr is not False:
            ones, twos = expected == 1, expected == 2
            expected[ones], expected[twos] = 2, 1
        np.testing.assert_array_equal(found_label, expected)
        # Mirrored and exchanged twice is the label again
        swaps = swap_lr is not False
        table = samples.labels.flip_table() if swaps else np.arange(256)
        np.testing.assert_array_equal(table[found_label][:, ::-1], label)


def test_heatmaps_follow_the_augmented_joints(tmp_path):
    joints = np.random.default_rng(1).uniform(0, 39, (3, 24, 2)).astype(np.float32)
    folder = make_folder(tmp_path, [(40, 40)] * 3, joints=joints)
    samples = Samples(folder, "train", (40, 40))
    settings = Augment(mirror=1.0, swap_lr=True)
    heads = {"joints0_heatmaps": Head(target="heatmaps"), "logits": Head()}
    ((_, targets),) = training(samples, stop=1, heads=heads, augment=settings)
    maps = targets["joints0_heatmaps"]
    assert (maps.shape, maps.dtype) == ((3, 40, 40, 24), np.float32)
    left_hip, right_hip = 1, 2
    for row in range(3):
        x, y = joints[pipeline.sample_at(5, row, 3), left_hip]
        peak = np.unravel_index(maps[row, ..., right_hip].argmax(), (40, 40))
        assert abs(peak[0] - y) <= 0.51
        assert abs(peak[1] - (39 - x)) <= 0.51


def test_heatmaps_of_a_head_of_lower_resolution(tmp_path):
    joints = np.random.default_rng(1).uniform(2, 37, (3, 24, 2)).astype(np.float32)
    folder = make_folder(tmp_path, [(40, 56)] * 3, joints=joints)
    samples = Samples(folder, "train", (40, 56), padded_size=(48, 64))
    heads = {"joints0_heatmaps": Head(target="heatmaps", stride=2)}
    ((_, targets),) = training(samples, stop=1, heads=heads, augment=Augment())
    maps = targets["joints0_heatmaps"]
    assert maps.shape == (3, 24, 32, 24)
    # A pixel of half the resolution lies between two of the image's: at 2 k + 1/2.
    rows, columns = np.mgrid[0:24, 0:32] * 2 + 0.5
    sigma = 5 * 40 / 320
    for row, found in enumerate(maps):
        for joint, (x, y) in enumerate(joints[pipeline.sample_at(5, row, 3)]):
            squared = (columns - x) ** 2 + (rows - y) ** 2
            expected = np.exp(-squared / (2 * sigma**2)) * (squared <= 9 * sigma**2)
            np.testing.assert_allclose(found[..., joint], expected, atol=1e-4)


def test_heatmaps_of_part_centres_follow_the_augmented_label(tmp_path):
    folder = make_folder(tmp_path, [(40, 56)] * 2, num_classes=4)
    samples = Samples(folder, "train", (40, 56), padded_size=(64, 64))
    heads = {"logits": Head(), "joints0_heatmaps": Head(target="heatmaps")}
    settings = {"batch": 2, "heads": heads, "joints": "centroid"}
    ((_, targets),) = training(samples, stop=1, **settings)
    for label, maps in zip(targets["logits"], targets["joints0_heatmaps"]):
        for part in (1, 2, 3):
            rows, columns = np.nonzero(label == part)
            peak = np.unravel_index(maps[..., part - 1].argmax(), label.shape)
            assert abs(peak[0] - rows.mean()) <= 0.51
            assert abs(peak[1] - columns.mean()) <= 0.51
        assert (maps[..., 3:] == -1).all()


def test_crops_are_for_training_and_padded_by_themselves(folder):
    samples = Samples(folder, "train", (24, 40), padded_size=(16, 32))
    feed_ = feed(samples, crop=(12, 30))
    batches = feed_.training(5, Augment(mirror=0.5, balance=0.5), 0, 3)
    for image, targets in batches:
        label = targets["logits"]
        assert image.shape == (3, 16, 32, 3)
        assert (image[:, 12:] == 0).all()
        assert (label[:, 12:] == 255).all()
        assert (label[:, :, 30:] == 255).all()
        assert (image[:, :12, :30] > 0).mean() > 0.9
    # Each crop is a window of its image, mirrored or not
    image, label, _ = pipeline.training_sample(
        samples, 5, 3, Augment(mirror=0.5, balance=1.0), (12, 30)
    )
    whole = samples.plain(pipeline.sample_at(5, 3, 7))[0]
    windows = [
        turned[top : top + 12, left : left + 30]
        for turned in (whole, whole[:, ::-1])
        for top in range(13)
        for left in range(11)
    ]
    assert sum(np.array_equal(image, window) for window in windows) == 1


# The same bits, always


def test_any_number_of_workers_and_any_start_give_the_same_bits(folder, samples):
    expected = list(training(samples, stop=8, workers=1))
    assert len(expected) == 8
    for workers, cache_bytes in ((4, 0), (2, 2 << 30), (3, 3 * 24 * 40 * 4)):
        samples = Samples(folder, "train", (24, 40), cache_bytes=cache_bytes)
        assert_equal_batches(training(samples, stop=8, workers=workers), expected)
        assert_equal_batches(training(samples, 5, 8, workers=workers), expected[5:])
    ((other, _),) = training(samples, stop=1, seed=6)
    assert not np.array_equal(other, expected[0][0])


@pytest.mark.parametrize("workers", [1, 4])
def test_tensorflow_gets_the_same_bits_as_numpy(tmp_path, workers):
    joints = np.random.default_rng(2).uniform(0, 24, (7, 24, 2)).astype(np.float32)
    folder = make_folder(tmp_path, SIZES, joints=joints)
    heads = {"logits": Head(), "coarse": Head(lookup=(0, 1, 1, 1, 1))}
    heads |= {"joints0_heatmaps": Head(target="heatmaps")}
    samples = Samples(folder, "train", (24, 40), padded_size=(32, 48))
    settings = {"heads": heads, "workers": workers}
    crops = Samples(folder, "train", (24, 40), padded_size=(16, 32))
    for batches in (
        training(samples, 2, 6, **settings),
        training(crops, 2, 6, **settings, crop=(12, 30)),
        evaluation(samples, **settings),
    ):
        assert_equal_batches(batches.dataset(), batches)


def test_the_dataset_has_static_shapes_and_no_autotuning(folder):
    samples = Samples(folder, "train", (24, 40), padded_size=(32, 48))
    for batches, size, count in (
        (training(samples, 2, 7), 3, 5),
        (evaluation(samples), None, 3),
    ):
        dataset = batches.dataset()
        image, targets = dataset.element_spec
        assert image.shape.as_list() == [size, 32, 48, 3]
        assert targets["logits"].shape.as_list() == [size, 32, 48]
        assert dataset.cardinality() == count
        assert dataset.options().autotune.enabled is False


PARALLEL = """
import sys
import threading

import tensorflow as tf

sys.path.insert(0, {tests!r})
from pathlib import Path

from test_pipeline import Samples, evaluation, make_folder

tf.config.experimental.enable_op_determinism()
both = threading.Barrier(2)  # passed only by two threads at a time


class Meeting(Samples):
    def plain(self, k):
        both.wait()
        return super().plain(k)


folder = make_folder(Path({folder!r}), [(8, 8)] * 4)
samples = Meeting(folder, "train", (8, 8))
assert len(list(evaluation(samples, batch=1).dataset())) == 4
next(iter(evaluation(Samples(folder, "train", (800, 800)), batch=1).dataset()))
print("met")
"""


def test_batches_are_made_in_parallel_under_op_determinism(tmp_path):
    """Also: a process may end while its loader is working.

    One thread at a time would wait for the other for ever: only then the limit counts.
    """
    script = PARALLEL.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert (result.returncode, result.stdout) == (0, "met\n"), result.stderr


def test_images_for_the_device_are_neither_normalised_nor_padded(folder):
    samples = Samples(folder, "train", (24, 40), padded_size=(32, 48))
    settings = {"stop": 3, "preprocess": "imagenet"}
    raw = list(training(samples, normalise=False, **settings))
    for (image, targets), (expected, same) in zip(raw, training(samples, **settings)):
        assert image.dtype == np.uint8
        assert image.shape == (3, 24, 40, 3)
        found = np.zeros((3, 32, 48, 3), np.float32)
        found[:, :24, :40] = preprocess.imagenet(image)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(targets["logits"], same["logits"])
    assert_equal_batches(training(samples, normalise=False, **settings).dataset(), raw)


# What goes wrong


def damage_file(sample):
    content = sample.image.read_bytes()
    sample.image.write_bytes(content[: len(content) // 2])


def damage_label(sample):
    label = read_label(sample.label)
    label[:2, :3] = 9
    cv2.imwrite(str(sample.label), label)


def damage_size(sample):
    cv2.imwrite(str(sample.label), read_label(sample.label)[:, 1:])


def invert(sample):
    """Another picture in a whole file: only its hash tells."""
    cv2.imwrite(str(sample.image), 255 - cv2.imread(str(sample.image)))


FAULTS = [
    (invert, r"s4\.png was changed after it was prepared"),
    (damage_file, r"s4\.png is damaged \(truncated"),
    (damage_label, r"labels/train/s4\.png has class id 9 in 6 pixels.* 0 to 4, or 255"),
    (damage_size, r"labels/train/s4\.png has 36 x 20 pixels, but its image 37 x 20"),
]


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_a_bad_file_is_named(folder, damage, message):
    """TensorFlow raises an error of its own and leaves the cause with the samples."""
    import tensorflow as tf

    damage(folder.samples("train")[4])
    if damage in (damage_label, damage_size):  # as if it had been prepared so
        miniatures.resign(folder.folder)
        folder = open_prepared(folder.folder)
    samples = Samples(folder, "train", (24, 40))
    assert samples.error is None
    with pytest.raises(tf.errors.OpError):
        list(training(samples).dataset())
    with pytest.raises(DataError, match=message):
        raise samples.error
    with pytest.raises(DataError, match=message):
        list(training(samples))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocess": "caffe"}, "Unknown preprocess 'caffe'"),
        ({"heads": {"logits": Head(target="depth")}}, "logits has the target depth"),
        ({"heads": {"logits": Head(lookup=(0, 1))}}, "5 ids"),
        ({"joints": "hands"}, "data.joints is hands"),
        ({"heads": {"h": Head(target="heatmaps")}}, "no joints for heatmaps"),
    ],
)
def test_wrong_use_is_refused_at_once(samples, changes, message):
    with pytest.raises(UsageError, match=message):
        evaluation(samples, **changes)
