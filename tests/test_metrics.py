"""Metrics against numbers by hand, scikit-learn and loops."""

import json

import keras
import numpy as np
import oracles
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from keras_seg import losses, metrics
from keras_seg.errors import DataError, UsageError

CONFUSION = np.array([[50, 2, 3, 0], [4, 20, 1, 0], [2, 3, 15, 0], [0, 0, 0, 0]])

# BODY's groups of SURREAL ids, in the order of its tables 2 and 5.
GROUPS = {
    "Background": [0],
    "Head": [16],
    "Torso": [1, 4, 7, 10],
    "U.Legs": [2, 3],
    "L.Legs": [5, 6],
    "Neck": [13],
    "Shoulder": [14, 15],
    "U.Arms": [17, 18],
    "L.Arms": [19, 20],
    "Feets": [8, 9],
    "Hands": [21, 22],
    "Fingers": [23, 24],
    "Toes": [11, 12],
}
# Row | "All Classes" accuracy | accuracy of the 13 groups, in percent.
BODY_TABLES = """
normal      | 48.7 | 98.9 84.9 74.78 64.3 53.8 64.0 54.2 52.7 39.5 32.3 19.8 9.3 9.5
W1 outer    | 52.3 | 97.7 90.0 74.8 70.9 61.7 60.9 56.0 57.34 50.1 38.9 22.9 10.2 11.3
W1 direct   |  7.9 | 99.9 6.13 15.5 7.7 0.8 0.0 4.7 1.9 0.0 3.6 0.0 0.0 0.0
W2 outer    | 54.8 | 89.2 89.3 61.6 64.1 65.2 72.4 60.3 47.0 46.03 52.35 33.4 31.0 36.9
W2 direct   | 34.0 | 99.3 78.7 70.7 70.0 59.0 1.9 8.9 32.9 15.7 7.1 0.5 0.0 0.0
DF          | 49.9 | 99.1 84.2 70.9 63.2 58.4 58.1 51.8 52.7 43.9 39.9 28.8 12.4 9.8
DF W1 outer | 55.6 | 97.5 90.3 74.2 66.8 61.8 58.3 65.1 62.0 49.6 42.0 36.3 25.3 14.2
DF W2 outer | 56.3 | 78.18 79.8 65.6 60.0 57.1 85.8 71.1 52.5 51.8 44.2 41.7 34.1 38.4
"""

unhurried = settings(deadline=None)
count_matrices = st.integers(1, 6).flatmap(
    lambda classes: st_numpy.arrays(
        np.int64, (classes, classes), elements=st.sampled_from([0, 0, 1, 7, 10**6])
    )
)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("iou", [0.819672, 0.666667, 0.625, np.nan]),
        ("f1", [0.900901, 0.8, 0.769231, np.nan]),
        ("recall", [50 / 55, 20 / 25, 15 / 20, np.nan]),
        ("precision", [50 / 56, 20 / 25, 15 / 19, np.nan]),
        ("miou", 0.703780),
        ("pixel_accuracy", 0.85),
        ("mean_accuracy", 0.819697),
        ("f1_macro", 0.823377),
        ("f1_weighted", 0.849342),
        ("f1_micro", 0.85),
        ("fwiou", 0.742486),
        ("precision_micro_fg", 0.795455),
        ("recall_micro_fg", 0.777778),
        ("f1_micro_fg", 0.786517),
        ("f1_body", 0.876404),
        ("miou_fg", 0.645833),
        # Class 1: (20/30 + 70/80) / 2, class 2: (15/24 + 76/85) / 2.
        ("iou_ovr2", 0.765196),
        ("absent_ids", [3]),
    ],
)
def test_summary_by_hand(key, expected):
    value = metrics.summary(CONFUSION)[key]
    np.testing.assert_allclose(value, expected, atol=1e-6)


def test_class_that_is_only_predicted_counts_zero():
    summary = metrics.summary(np.array([[6, 2], [0, 0]]))
    np.testing.assert_array_equal(summary["iou"], [0.75, 0])
    np.testing.assert_array_equal(summary["f1"], [12 / 14, 0])
    np.testing.assert_array_equal(summary["recall"], [0.75, np.nan])
    np.testing.assert_array_equal(summary["precision"], [1, 0])
    assert summary["miou"] == 0.375
    assert summary["mean_accuracy"] == 0.75
    assert summary["absent_ids"] == []


def test_counts_of_a_small_integer_type_do_not_overflow():
    counts = (4 * CONFUSION).astype("uint8")
    np.testing.assert_array_equal(
        metrics.summary(counts)["f1"], metrics.summary(CONFUSION)["f1"]
    )


def test_summary_of_nothing():
    summary = metrics.summary(np.zeros((3, 3), int))
    assert all(np.isnan(v) for v in summary.values() if isinstance(v, float))
    assert summary["absent_ids"] == [0, 1, 2]


@unhurried
@given(count_matrices)
def test_summary_agrees_with_scikit_learn(confusion):
    ids = np.arange(len(confusion))
    truth, predicted = (grid.ravel() for grid in np.meshgrid(ids, ids, indexing="ij"))
    weight = confusion.ravel()
    if not weight.any():
        return
    options = {"labels": ids, "sample_weight": weight}
    summary = metrics.summary(confusion)
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        truth, predicted, average=None, zero_division=np.nan, **options
    )
    np.testing.assert_allclose(summary["precision"], precision)
    np.testing.assert_allclose(summary["recall"], recall)
    np.testing.assert_allclose(summary["f1"], f1)
    present = confusion.sum(0) + confusion.sum(1) > 0
    iou = sklearn.metrics.jaccard_score(
        truth, predicted, average=None, zero_division=0, **options
    )
    np.testing.assert_allclose(summary["iou"], np.where(present, iou, np.nan))
    np.testing.assert_allclose(summary["miou"], iou[present].mean())
    for key, average in {"f1_macro": "macro", "f1_weighted": "weighted"}.items():
        expected = sklearn.metrics.f1_score(
            truth, predicted, average=average, zero_division=np.nan, **options
        )
        np.testing.assert_allclose(summary[key], expected)
    np.testing.assert_allclose(
        summary["pixel_accuracy"],
        sklearn.metrics.accuracy_score(truth, predicted, sample_weight=weight),
    )
    foreground = ids[1:]
    if confusion[1:].any() or confusion[:, 1:].any():
        micro = sklearn.metrics.f1_score(
            truth,
            predicted,
            average="micro",
            labels=foreground,
            sample_weight=weight,
            zero_division=np.nan,
        )
        np.testing.assert_allclose(summary["f1_micro_fg"], micro)
        body = sklearn.metrics.f1_score(truth > 0, predicted > 0, sample_weight=weight)
        np.testing.assert_allclose(summary["f1_body"], body)


@unhurried
@given(count_matrices, st.randoms(use_true_random=False))
def test_summary_does_not_depend_on_the_order_of_the_foreground(confusion, random):
    order = list(range(1, len(confusion)))
    random.shuffle(order)
    order = [0, *order]
    before = metrics.summary(confusion)
    after = metrics.summary(confusion[np.ix_(order, order)])
    for key, value in before.items():
        if key != "absent_ids":
            value = value[order] if isinstance(value, np.ndarray) else value
            np.testing.assert_allclose(after[key], value)


def test_evaluated_classes():
    """Cityscapes' rule, by hand: row 0 is void, column 0 stays an error of the true."""
    confusion = np.array([[9, 5, 7], [1, 6, 2], [3, 0, 4]])
    summary = metrics.summary(confusion, classes=[1, 2])
    iou = [6 / (9 + 6 - 6), 4 / (7 + 6 - 4)]
    np.testing.assert_allclose(summary["iou"], [np.nan, *iou])
    np.testing.assert_allclose(summary["miou"], np.mean(iou))
    np.testing.assert_allclose(summary["pixel_accuracy"], 10 / 16)
    np.testing.assert_allclose(summary["mean_accuracy"], (6 / 9 + 4 / 7) / 2)
    np.testing.assert_allclose(summary["recall"], [np.nan, 6 / 9, 4 / 7])
    assert summary["absent_ids"] == []


@unhurried
@given(count_matrices.filter(lambda m: len(m) > 2))
def test_evaluated_classes_are_those_of_ignored_labels(confusion):
    """Dropping a class equals labelling its pixels as ignored."""
    summary = metrics.summary(confusion, classes=range(1, len(confusion)))
    dropped = confusion.copy()
    dropped[0] = 0
    expected = metrics.summary(dropped)
    np.testing.assert_allclose(summary["iou"][1:], expected["iou"][1:])
    np.testing.assert_allclose(summary["pixel_accuracy"], expected["pixel_accuracy"])
    np.testing.assert_allclose(summary["miou"], expected["miou_fg"])


@pytest.mark.parametrize("row", BODY_TABLES.strip().splitlines())
def test_published_rows_of_body_pass_the_13_group_check(row):
    """ "All Classes" is the mean over the 25 classes, not over the 13 groups."""
    name, published, groups = row.split("|")
    published, groups = float(published), [float(group) for group in groups.split()]
    confusion = np.zeros((25, 25), int)
    for ids, accuracy in zip(GROUPS.values(), groups):
        for class_id in ids:
            # 10,000 true pixels of each class; the errors go to the next class.
            confusion[class_id, class_id] = round(100 * accuracy)
            confusion[class_id, (class_id + 1) % 25] = 10000 - round(100 * accuracy)
    accuracy = metrics.grouped_accuracy(confusion, GROUPS)
    assert list(accuracy) == list(GROUPS)
    np.testing.assert_allclose(100 * np.array(list(accuracy.values())), groups)
    tolerance = 0.35 if name.startswith("W1 direct") else 0.06
    mean_accuracy = 100 * metrics.summary(confusion)["mean_accuracy"]
    np.testing.assert_allclose(mean_accuracy, published, atol=tolerance)
    assert abs(np.mean(groups) - published) > 0.15


def test_grouped_accuracy_is_the_mean_of_recalls():
    confusion = np.array([[8, 2, 0], [0, 90, 10], [0, 0, 0]])
    groups = {"both": (0, 1), "one and absent": (1, 2), "absent": (2,)}
    accuracy = metrics.grouped_accuracy(confusion, groups)
    expected = {"both": 0.85, "one and absent": 0.9, "absent": np.nan}
    assert accuracy == pytest.approx(expected, nan_ok=True)


def test_only_the_scored_ids_count():
    """Ids 1 and 2 of three: the pixels of class 0 drop out, false alarms stay."""
    confusion = np.array([[90, 5, 5], [2, 6, 0], [1, 3, 8]])
    found = metrics.scores(confusion, (1, 2))
    # Class 1: 6 right, 8 true, 6 + 3 predicted on scored pixels; class 2: 8, 12, 8.
    expected = [6 / (8 + 9 - 6), 8 / (12 + 8 - 8)]
    assert found["summary"]["miou"] == pytest.approx(np.mean(expected))
    assert found["per_class"]["iou"][0] is None
    assert found["scored_ids"] == [1, 2]
    assert found["confusion"] == confusion.tolist()
    everything = metrics.scores(confusion)
    assert everything["per_class"]["iou"][0] == pytest.approx(90 / 103)
    json.dumps(everything, allow_nan=False)


def test_plain_is_json_with_null_for_nan():
    values = {"confusion": CONFUSION, **metrics.summary(CONFUSION)}
    values["nested"] = {"both": (np.float64("nan"), np.int64(3))}
    record = json.loads(json.dumps(metrics.plain(values), allow_nan=False))
    assert record["confusion"] == CONFUSION.tolist()
    assert record["iou"] == [50 / 61, 20 / 30, 15 / 24, None]
    assert record["absent_ids"] == [3]
    assert record["nested"] == {"both": [None, 3]}
    assert record["miou"] == pytest.approx(0.703780, abs=1e-6)


def test_hard_dice_is_f1():
    """Of four pixels, as test_losses has them for the soft Dice loss."""
    confusion = metrics.confusion_matrix(
        np.array([0, 1, 2, 1]), np.array([0, 1, 2, 0]), 3
    )
    f1 = metrics.summary(confusion)["f1"]
    np.testing.assert_allclose(f1, [0.666667, 0.666667, 1], atol=1e-6)


# Counting


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_confusion_matrix_counts(dtype):
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 2, 4, 255], (2, 5, 7)).astype(dtype)
    prediction = rng.integers(0, 6, label.shape).astype(dtype)
    confusion = metrics.confusion_matrix(label, prediction, 6)
    assert confusion.dtype == np.int64
    np.testing.assert_array_equal(confusion, oracles.confusion(label, prediction, 6))
    valid = label != 255
    np.testing.assert_array_equal(
        confusion,
        sklearn.metrics.confusion_matrix(
            label[valid], prediction[valid], labels=range(6)
        ),
    )


def test_prediction_at_an_ignored_pixel_may_be_anything():
    confusion = metrics.confusion_matrix(np.array([255, 1]), np.array([77, 0]), 2)
    np.testing.assert_array_equal(confusion, [[0, 0], [1, 0]])


@pytest.mark.parametrize(
    ("label", "prediction", "error", "named"),
    [
        ([2], [0], DataError, "label id 2"),
        ([-1], [0], DataError, "label id -1"),
        ([0], [2], DataError, "predicted id 2"),
        ([0, 1], [0], UsageError, "shape"),
        ([0.0], [0], UsageError, "float64"),
    ],
)
def test_confusion_matrix_refuses(label, prediction, error, named):
    with pytest.raises(error, match=named) as caught:
        metrics.confusion_matrix(np.array(label), np.array(prediction), 2)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.summary(np.ones((2, 3), int)),
        lambda: metrics.summary(np.ones((2, 2))),
        lambda: metrics.summary(np.array([[1, -1], [0, 0]])),
        lambda: metrics.summary(CONFUSION, classes=[4]),
        lambda: metrics.summary(CONFUSION, classes=[]),
        lambda: metrics.grouped_accuracy(CONFUSION, {"all": [0, 4]}),
        lambda: metrics.grouped_accuracy(CONFUSION, {"none": []}),
        lambda: metrics.ConfusionMatrix(3, resize="both"),
        lambda: metrics.ConfusionMatrix(3, direct_weights=[1, 2]),
        lambda: metrics.ConfusionMatrix(3)(np.zeros((1, 2, 2)), np.zeros((1, 2, 2, 4))),
        lambda: metrics.ConfusionMatrix(3)(np.zeros((2, 2)), np.zeros((1, 2, 2, 3))),
    ],
)
def test_wrong_use_is_refused(call):
    with pytest.raises(UsageError):
        call()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((320, 320), (80, 80)),
        ((360, 480), (45, 60)),
        ((75, 101), (32, 32)),
        ((5, 7), (16, 9)),
        ((6, 4), (6, 4)),
    ],
)
def test_labels_are_resized_at_half_pixel_centres(old, new):
    label = np.random.default_rng(0).integers(0, 255, (2, *old))
    resized = keras.ops.convert_to_numpy(metrics.resize_labels(label, *new))
    np.testing.assert_array_equal(resized, oracles.nearest(label, *new))


# The Keras metric


def random_batch(seed, label_size, size, classes=5):
    rng = np.random.default_rng(seed)
    ids = [*range(classes - 1), oracles.IGNORE_ID]  # the last class is absent
    label = rng.choice(ids, (3, *label_size)).astype("uint8")
    return label, rng.normal(size=(3, *size, classes)).astype("float32")


@pytest.mark.parametrize("resize", ["logits", "labels"])
@pytest.mark.parametrize(
    ("label_size", "size"),
    [((6, 8), (6, 8)), ((12, 20), (3, 5)), ((7, 9), (4, 3)), ((3, 4), (6, 7))],
)
def test_metric_counts_like_the_loops(resize, label_size, size):
    metric = metrics.ConfusionMatrix(5, resize=resize)
    expected = np.zeros((5, 5), int)
    for seed in range(2):
        label, logits = random_batch(seed, label_size, size)
        metric.update_state(label, logits)
        if resize == "labels":
            label = oracles.nearest(label, *size)
        else:
            logits = oracles.bilinear(logits, *label_size)
        expected += oracles.confusion(label, logits.argmax(-1), 5)
    np.testing.assert_array_equal(metric.confusion(), expected)
    assert metric.confusion().dtype == np.int64
    assert metric.invalid == 0
    miou = metrics.summary(expected)["miou"]
    np.testing.assert_allclose(float(metric.result()), miou, rtol=1e-6)
    metric.reset_state()
    assert metric.confusion().sum() == 0
    assert np.isnan(float(metric.result()))


def test_metric_takes_any_dtype():
    label, logits = random_batch(0, (6, 8), (6, 8))
    logits = keras.ops.cast(logits, "bfloat16")
    expected = keras.ops.convert_to_numpy(keras.ops.cast(logits, "float32")).argmax(-1)
    for dtype in ("uint8", "int64", "float32"):
        metric = metrics.ConfusionMatrix(5)
        metric.update_state(label.astype(dtype), logits)
        np.testing.assert_array_equal(
            metric.confusion(), oracles.confusion(label, expected, 5)
        )


def test_metric_counts_beyond_32_bits():
    """As if 3 * 2^31 + 2^24 - 1 pixels were counted before: words of base 2^24."""
    metric = metrics.ConfusionMatrix(2)
    label, logits = np.zeros((1, 1, 3)), np.zeros((1, 1, 3, 2))
    low, high = metric.variables
    low.assign([2**24 - 1, 0, 0, 0, 0])
    high.assign([3 * 2**7, 0, 0, 0, 0])
    for pixels in (3, 6):
        metric.update_state(label, logits)
        assert metric.confusion()[0, 0] == 3 * 2**31 + 2**24 - 1 + pixels
    assert keras.ops.convert_to_numpy(low)[0] == 5
    label[0, 0, 0] = 1
    metric.update_state(label, logits)
    # IoU of class 0: all but one of its predictions are right; class 1: none is.
    counted = 3 * 2**31 + 2**24 + 7
    expected = counted / (counted + 1) / 2
    np.testing.assert_allclose(float(metric.result()), expected, rtol=1e-6)


def test_metric_tells_invalid_labels():
    label, logits = random_batch(0, (4, 4), (4, 4))
    expected = oracles.confusion(label[1:], logits[1:].argmax(-1), 5)
    label = label.astype("int32")
    label[0] = np.array([5, 200, 254, -1]).repeat(4).reshape(4, 4)
    metric = metrics.ConfusionMatrix(5)
    metric.update_state(label, logits)
    assert metric.invalid == 16
    assert np.isnan(float(metric.result()))  # not the score of the others
    np.testing.assert_array_equal(metric.confusion(), expected)


def test_metric_takes_the_lowest_of_equal_classes():
    logits = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    metric = metrics.ConfusionMatrix(3)
    metric.update_state(np.zeros((1, 1, 3)), logits.reshape(1, 1, 3, 3))
    np.testing.assert_array_equal(metric.confusion()[0], [2, 1, 0])


def test_metric_of_diverged_logits_stays_in_its_row():
    metric = metrics.ConfusionMatrix(3)
    metric.update_state(np.ones((1, 1, 2)), np.full((1, 1, 2, 3), np.nan))
    np.testing.assert_array_equal(metric.confusion().sum(1), [0, 2, 0])


def test_metric_with_direct_weights():
    label, logits = random_batch(0, (4, 6), (4, 6))
    weights = [0.1, 0.94, 3, 20, 1]
    metric = metrics.ConfusionMatrix(5, direct_weights=weights)
    metric.update_state(label, logits)
    prediction = (logits * np.float32(weights)).argmax(-1)
    assert (prediction != logits.argmax(-1)).any()
    np.testing.assert_array_equal(
        metric.confusion(), oracles.confusion(label, prediction, 5)
    )


@pytest.mark.parametrize("backend", ["plain", "compiled"])
def test_each_image_has_its_confusion_matrix(backend):
    count = metrics.confusions
    if backend == "compiled":
        tf = pytest.importorskip("tensorflow")
        count = tf.function(count)
    label, logits = random_batch(0, (12, 20), (3, 5))
    label = label.astype("int32")
    found = keras.ops.convert_to_numpy(count(label, logits, 5))
    predictions = oracles.bilinear(logits, 12, 20).argmax(-1)
    for row, truth, prediction in zip(found, label, predictions):
        expected = oracles.confusion(truth, prediction, 5)
        np.testing.assert_array_equal(row[:-1].reshape(5, 5), expected)
        assert row[-1] == 0
    label[1, :2] = [[5], [-1]]
    counts = keras.ops.convert_to_numpy(count(label, logits, 5))
    assert counts[:, -1].tolist() == [0, 40, 0]


@pytest.mark.parametrize("classes", [None, (1, 2, 4)])
def test_counts_of_images_add_up_to_the_scores(classes):
    """Against loops over pixels; class 3 and the background unscored."""
    label, logits = random_batch(0, (6, 8), (6, 8))
    total, matrices = np.zeros((3, 5), int), []
    for truth, prediction in zip(label, logits.argmax(-1)):
        expected = np.zeros((3, 5), int)
        for t, p in zip(truth.ravel(), prediction.ravel()):
            if t != 255 and (classes is None or t in classes):
                expected[0, t] += t == p
                expected[1, t] += 1
                expected[2, p] += 1
        matrices.append(oracles.confusion(truth, prediction, 5))
        counts = metrics.image_counts(matrices[-1], classes)
        np.testing.assert_array_equal(counts, expected)
        total += counts
    iou = metrics.summary(sum(matrices), classes=classes)["iou"]
    hits, truth, predicted = total
    known = ~np.isnan(iou)
    union = (truth + predicted - hits)[known]
    np.testing.assert_allclose(iou[known], hits[known] / union)


def test_metric_survives_serialisation():
    metric = metrics.ConfusionMatrix(
        3, ignore_id=0, resize="labels", direct_weights=np.ones(3), name="train_miou"
    )
    config = keras.saving.serialize_keras_object(metric)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == metric.get_config()
    copy.update_state(np.array([[[0, 1]]]), np.eye(3)[None, None, :2])
    np.testing.assert_array_equal(copy.confusion(), [[0, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_metric_in_fit_and_evaluate_of_a_net_with_two_heads():
    image = keras.Input((8, 6, 3))
    heads = {
        "logits": keras.layers.Conv2D(4, 1, 2, name="logits")(image),
        "sub_logits": keras.layers.Conv2D(4, 1, name="sub_logits")(image),
    }
    net = keras.Model(image, heads)
    metric = metrics.ConfusionMatrix(4, name="miou")
    net.compile(
        keras.optimizers.SGD(0.0),
        loss=losses.for_heads(net, losses.CrossEntropy()),
        metrics={"logits": metric},
    )
    rng = np.random.default_rng(0)
    images = rng.normal(size=(10, 8, 6, 3)).astype("float32")
    label = rng.choice([0, 1, 3, 255], (10, 8, 6)).astype("uint8")
    labels = dict.fromkeys(heads, label)
    logits = net.predict(images, verbose=0)["logits"]
    prediction = oracles.bilinear(logits, 8, 6).argmax(-1)
    expected = oracles.confusion(label, prediction, 4)
    miou = metrics.summary(expected)["miou"]

    history = net.fit(images, labels, batch_size=4, epochs=2, verbose=0).history
    np.testing.assert_allclose(history["logits_miou"], [miou, miou], rtol=1e-6)
    logs = net.evaluate(images, labels, batch_size=3, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["logits_miou"], miou, rtol=1e-6)
    np.testing.assert_array_equal(metric.confusion(), expected)
