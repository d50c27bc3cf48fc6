"""Losses against numbers by hand, PyTorch and NumPy loops."""

from types import SimpleNamespace

import keras
import numpy as np
import oracles
import pytest

from keras_seg import losses, nets
from keras_seg.config import LossSettings
from keras_seg.errors import UsageError
from keras_seg.nets import NETS

# One pixel, true class 2, and the weights of the counts [900, 60, 30, 10].
LOGITS = np.array([2.0, 1.0, 0.5, -1.0], "float32").reshape(1, 1, 1, 4)
LABEL = np.full((1, 1, 1), 2, "uint8")
W1 = [0.1, 0.94, 0.97, 0.99]
W2 = [1.275357, 17.254787, 30.897626, 59.564628]
CE = losses.CrossEntropy()
FOCAL = losses.Focal()

EVERY_LOSS = {
    "ce": (CE, oracles.cross_entropy),
    "outer": (
        losses.CrossEntropy(W2),
        lambda t, x: oracles.cross_entropy(t, x, W2),
    ),
    "outer by weights": (
        losses.CrossEntropy(W2, normalise="weights"),
        lambda t, x: oracles.cross_entropy(t, x, W2, normalise="weights"),
    ),
    "direct": (
        losses.CrossEntropy(W1, "direct"),
        lambda t, x: oracles.cross_entropy(t, x, W1, "direct"),
    ),
    "direct by weights": (
        losses.CrossEntropy(W1, "direct", "weights"),
        lambda t, x: oracles.cross_entropy(t, x, W1, "direct"),
    ),
    "smoothed": (
        losses.CrossEntropy(smoothing=0.2),
        lambda t, x: oracles.cross_entropy(t, x, smoothing=0.2),
    ),
    "outer, smoothed": (
        losses.CrossEntropy(W2, normalise="weights", smoothing=0.1),
        lambda t, x: oracles.cross_entropy(t, x, W2, "outer", "weights", 0.1),
    ),
    "direct, smoothed": (
        losses.CrossEntropy(W1, "direct", smoothing=0.1),
        lambda t, x: oracles.cross_entropy(t, x, W1, "direct", smoothing=0.1),
    ),
    "dice": (losses.Dice(), oracles.dice),
    "tversky": (
        losses.Tversky(0.2, 1.3),
        lambda t, x: oracles.tversky(t, x, 0.2, 1.3),
    ),
    "lovasz": (losses.Lovasz(), oracles.lovasz),
    "ohem by its bound": (
        losses.HardPixels(0.4, 0.1),
        lambda t, x: oracles.hard_pixels(t, x, 0.4, 0.1),
    ),
    "ohem by its share": (
        losses.HardPixels(0.01, 0.45),
        lambda t, x: oracles.hard_pixels(t, x, 0.01, 0.45),
    ),
    "ohem of all": (losses.HardPixels(1.0, 1.0), oracles.cross_entropy),
    "sum": (
        losses.Sum(losses.CrossEntropy(W1), losses.Dice(), 0.7),
        lambda t, x: oracles.cross_entropy(t, x, W1) + 0.7 * oracles.dice(t, x),
    ),
    "focal": (FOCAL, oracles.focal),
    "focal, small gamma": (
        losses.Focal(gamma=0.5, alpha=2),
        lambda t, x: oracles.focal(t, x, 0.5, 2),
    ),
    "with penalty": (
        losses.WithErrorPenalty(CE, l1=0.5, l2=0.3),
        lambda t, x: (
            oracles.cross_entropy(t, x) + oracles.error_penalty(t, x, 0.5, 0.3)
        ),
    ),
}
every_loss = pytest.mark.parametrize(
    ("loss", "oracle"), EVERY_LOSS.values(), ids=EVERY_LOSS
)


def value_and_gradient(loss, label, logits):
    """The loss and its gradient with respect to the logits, on the running backend."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        logits = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(label, logits)
        return value.numpy(), tape.gradient(value, logits).numpy()
    import jax

    value, slope = jax.value_and_grad(lambda x: loss(label, x))(logits)
    return np.asarray(value), np.asarray(slope)


def random_batch(seed, label_size=(4, 6), size=(4, 6), classes=4, absent=None):
    """Ids uint8 [2, *label_size], a fifth ignored; logits [2, *size, classes]."""
    rng = np.random.default_rng(seed)
    present = [c for c in range(classes) if c != absent]
    label = rng.choice([*present, oracles.IGNORE_ID], (2, *label_size)).astype("uint8")
    return label, rng.normal(0, 2, (2, *size, classes)).astype("float32")


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (CE, 1.995182),
        (losses.CrossEntropy(W1), 1.935326),
        (losses.CrossEntropy(W1, "direct"), 1.268909),
        (losses.CrossEntropy(W2), 61.646385),
        (losses.CrossEntropy(W2, "direct"), 1.958107),
        (losses.CrossEntropy(W2, normalise="weights"), 1.995182),
        (FOCAL, 0.372358),
        (losses.Focal(alpha=1), 1.489434),
        (losses.Focal(alpha=0), 0),
        (losses.Focal(gamma=0, alpha=1), 1.995182),
        (losses.WithErrorPenalty(FOCAL, 0, 0), 0.372358),
        (losses.WithErrorPenalty(FOCAL, 0, 0.5), 0.518502),
        (losses.WithErrorPenalty(FOCAL, 0.5, 0), 0.588361),
        (losses.WithErrorPenalty(FOCAL, 0.5, 0.5), 0.734504),
        (losses.WithErrorPenalty(CE, 0, 0.5), 2.141325),
        (losses.WithErrorPenalty(CE, 0.5, 0), 2.211185),
        (losses.WithErrorPenalty(CE, 0.5, 0.5), 2.357328),
        (losses.WithErrorPenalty(CE, 1, 0), 1.995182 + 0.432006),
        (losses.WithErrorPenalty(CE, 0, 1), 1.995182 + 0.292287),
    ],
)
def test_value_at_one_pixel(loss, expected):
    np.testing.assert_allclose(float(loss(LABEL, LOGITS)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (CE, [0.609460, 0.224208, -0.864011, 0.030343]),
        (losses.CrossEntropy(W1), [0.591176, 0.217482, -0.838091, 0.029433]),
        (
            losses.CrossEntropy(W1, "direct"),
            [0.021142, 0.416536, -0.697296, 0.063675],
        ),
        (losses.CrossEntropy(W2, "direct"), [0, 14.819693, -26.537188, 0]),
        (FOCAL, [0.185179, 0.068124, -0.262523, 0.009220]),
    ],
    ids=["ce", "outer", "direct", "direct w2", "focal"],
)
def test_gradient_at_one_pixel(loss, expected):
    _, gradient = value_and_gradient(loss, LABEL, LOGITS)
    np.testing.assert_allclose(gradient.ravel(), expected, rtol=1e-5, atol=2e-6)


def test_direct_weights_are_a_temperature_of_each_class():
    """The gradient is w (q - y), q = softmax(w x)."""
    loss = losses.CrossEntropy(W1, "direct")
    value, gradient = value_and_gradient(loss, LABEL, LOGITS)
    q = gradient.ravel() / W1 + np.eye(4)[2]
    np.testing.assert_allclose(q, [0.211420, 0.443123, 0.281138, 0.064318], atol=2e-6)
    np.testing.assert_allclose(np.exp(-value), 0.281138, atol=2e-6)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (CE, (1.995182 + 1.886039) / 2),
        (losses.CrossEntropy(W1), 1.061965),
        (losses.CrossEntropy(W1, normalise="weights"), 1.984982),
    ],
)
def test_two_pixels(loss, expected):
    logits = np.array([[2, 1, 0.5, -1], [0.2, 1.5, 0, 0.3]], "float32")
    label = np.array([2, 0]).reshape(1, 1, 2)
    value = loss(label, logits.reshape(1, 1, 2, 4))
    np.testing.assert_allclose(float(value), expected, rtol=1e-5)


def test_dice_by_hand():
    """Two by two pixels and one ignored, whose probabilities must not count."""
    p = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5], [0.6, 0.3, 0.1]]
    logits = np.log([*p, [0.98, 0.01, 0.01]]).reshape(1, 1, 5, 3)
    label = np.array([0, 1, 2, 1, 255]).reshape(1, 1, 5)
    expected = 1 - (0.528302 + 0.619718 + 0.555556) / 3
    np.testing.assert_allclose(expected, 0.432141, atol=1e-6)
    value = losses.Dice()(label, logits)
    np.testing.assert_allclose(float(value), expected, atol=1e-6)


@every_loss
@pytest.mark.parametrize(
    ("label_size", "size"),
    [((3, 4), (3, 4)), ((7, 9), (3, 4)), ((2, 3), (3, 4))],
    ids=["same size", "larger label", "smaller label"],
)
def test_value_and_gradient_are_those_of_the_definition(loss, oracle, label_size, size):
    label, logits = random_batch(1, label_size, size, absent=3)
    value, gradient = value_and_gradient(loss, label, logits)
    expected = oracles.gradient(lambda x: oracle(label, x), logits.astype(float))
    np.testing.assert_allclose(value, oracle(label, logits), rtol=2e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize("normalise", ["pixels", "weights"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_cross_entropy_and_its_gradient_are_pytorchs(normalise, weighted, seed):
    torch = pytest.importorskip("torch")
    classes = 3 + 4 * seed
    label, logits = random_batch(seed, (9, 7), (9, 7), classes, absent=1)
    weights = np.random.default_rng(seed).uniform(0, 9, classes) if weighted else None
    value, gradient = value_and_gradient(
        losses.CrossEntropy(weights, normalise=normalise), label, logits
    )

    x = torch.tensor(logits, requires_grad=True)
    by_weights = normalise == "weights"
    expected = torch.nn.functional.cross_entropy(
        x.permute(0, 3, 1, 2),
        torch.tensor(label.astype("int64")),
        weight=torch.tensor(weights, dtype=torch.float32) if weighted else None,
        ignore_index=255,
        reduction="mean" if by_weights else "sum",
    )
    if not by_weights:
        expected = expected / (label != 255).sum()
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.peers
@pytest.mark.parametrize("weighted", [False, True])
def test_smoothed_cross_entropy_is_pytorchs(weighted):
    torch = pytest.importorskip("torch")
    label, logits = random_batch(3, (9, 7), (9, 7), 5, absent=1)
    weights = np.random.default_rng(3).uniform(0, 9, 5) if weighted else None
    loss = losses.CrossEntropy(weights, normalise="weights", smoothing=0.15)
    value, gradient = value_and_gradient(loss, label, logits)
    x = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        x.permute(0, 3, 1, 2),
        torch.tensor(label.astype("int64")),
        weight=torch.tensor(weights, dtype=torch.float32) if weighted else None,
        ignore_index=255,
        label_smoothing=0.15,
    )
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-4, atol=1e-7)


def test_lovasz_by_hand():
    """Class 0 at the pixels 0 and 1, class 1 at 2; p_0 = .6, .1, .3; one is ignored.

    Errors of class 0: .4, .9, .3. From the top: pixel 1 (J = 1/2), 0 (J = 1), 2 (J =
    1): .9/2 + .4/2 = .65. Of class 1, whose errors are the same: pixel 1 (J = 1/2), 0
    (J = 2/3), 2 (J = 1): .9/2 + .4/6 + .3/3.
    """
    p = np.array([0.6, 0.1, 0.3, 0.5])
    logits = np.log(np.stack([p, 1 - p], axis=-1)).reshape(1, 1, 4, 2)
    label = np.array([0, 0, 1, 255]).reshape(1, 1, 4)
    value = losses.Lovasz()(label, logits.astype("float32"))
    expected = (0.65 + 0.45 + 0.4 / 6 + 0.1) / 2
    np.testing.assert_allclose(float(value), expected, rtol=1e-5)


def test_tversky_of_a_half_and_of_one_are_dice_and_jaccard():
    label, logits = random_batch(8)
    dice = float(losses.Tversky(0.5, 0.5)(label, logits))
    np.testing.assert_allclose(dice, oracles.dice(label, logits), rtol=1e-5)
    # A prediction that is sure: the Jaccard loss of counts
    sure = 200 * np.eye(4, dtype="float32")[logits.argmax(-1)]
    counts = oracles.confusion(label, logits.argmax(-1), 4)
    truth, hits = counts.sum(1), np.diag(counts)
    iou = hits / (truth + counts.sum(0) - hits)
    value = float(losses.Tversky(1.0, 1.0)(label, sure))
    np.testing.assert_allclose(value, 1 - iou.mean(), rtol=1e-4)


def test_the_losses_of_settings():
    settings = LossSettings(
        name="ce", smoothing=0.1, plus="tversky", plus_weight=0.5, false_positives=0.4
    )
    found = losses.build(settings, None)
    label, logits = random_batch(9)
    expected = oracles.cross_entropy(label, logits, smoothing=0.1)
    expected += 0.5 * oracles.tversky(label, logits, 0.4, 0.7)
    np.testing.assert_allclose(float(found(label, logits)), expected, rtol=1e-5)
    weighted = LossSettings(name="dice", plus="ce", weights="w1")
    expected = oracles.dice(label, logits) + oracles.cross_entropy(label, logits, W1)
    value = losses.build(weighted, np.array(W1))(label, logits)
    np.testing.assert_allclose(float(value), expected, rtol=1e-5)
    hard = losses.build(LossSettings(name="ohem", hard_below=0.2, hard_share=0.3), None)
    assert (hard.below, hard.share) == (0.2, 0.3)


@every_loss
@pytest.mark.parametrize("scale", [1, 1e4])
def test_batch_without_a_valid_pixel_is_zero(loss, oracle, scale):
    _, logits = random_batch(2)
    label = np.full(logits.shape[:3], 255, "uint8")
    value, gradient = value_and_gradient(loss, label, logits * np.float32(scale))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@every_loss
def test_ignored_pixels_do_not_matter(loss, oracle):
    label, logits = random_batch(3)
    changed = np.where((label == 255)[..., None], 50 - 3 * logits, logits)
    assert (changed != logits).any()
    value, gradient = value_and_gradient(loss, label, logits)
    other_value, other_gradient = value_and_gradient(loss, label, changed)
    assert value == other_value
    np.testing.assert_array_equal(gradient, other_gradient)
    np.testing.assert_array_equal(gradient[label == 255], 0)


@pytest.mark.parametrize(
    ("loss", "expected", "expected_gradient"),
    [
        (CE, 20000, [1, -1, 0]),
        (
            losses.CrossEntropy([0.1, 0.94, 59.56], "direct"),
            10400,
            [0.1, -0.94, 0],
        ),
        (FOCAL, 5000, [0.25, -0.25, 0]),
    ],
    ids=["ce", "direct", "focal"],
)
def test_huge_logits(loss, expected, expected_gradient):
    logits = np.array([1e4, -1e4, 0], "float32").reshape(1, 1, 1, 3)
    value, gradient = value_and_gradient(loss, np.ones((1, 1, 1)), logits)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient.ravel(), expected_gradient, rtol=1e-5)


@every_loss
@pytest.mark.parametrize("true", [0, 1])
def test_gradient_is_finite_where_the_probability_is_0_or_1(loss, oracle, true):
    logits = np.array([1e4, -1e4, 0, 0], "float32").reshape(1, 1, 1, 4)
    value, gradient = value_and_gradient(loss, np.full((1, 1, 1), true), logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_small_losses_keep_their_digits():
    """log(1 + e^-12) beside a logit of 1000: no cancellation of large numbers."""
    logits = np.array([1000.0, 988.0], "float32").reshape(1, 1, 1, 2)
    value = CE(np.zeros((1, 1, 1)), logits)
    np.testing.assert_allclose(float(value), np.log1p(np.exp(-12)), rtol=0.05)


@pytest.mark.parametrize("label_dtype", ["uint8", "int32", "int64", "float32"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_any_dtype(label_dtype, dtype):
    label, logits = random_batch(4)
    exact = np.round(logits * 8) / 8  # so that bfloat16 has it without rounding
    logits = exact.astype("float64")
    if dtype != "float64":  # which JAX has not; NumPy's is taken all the same
        logits = keras.ops.cast(exact, dtype)
    value = CE(label.astype(label_dtype), logits)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert tuple(value.shape) == ()
    expected = oracles.cross_entropy(label, exact)
    np.testing.assert_allclose(float(value), expected, rtol=1e-5)


@every_loss
@pytest.mark.parametrize("unknown", [4, 254, -1])
def test_unknown_class_is_not_passed_over(loss, oracle, unknown):
    label, logits = random_batch(5)
    label = label.astype("int32")
    label[0, 1, 2] = unknown
    assert np.isnan(float(loss(label, logits)))


def test_float32_whatever_keras_floats():
    label, logits = random_batch(4)
    keras.config.set_floatx("bfloat16")
    try:
        value = float(losses.CrossEntropy()(label, logits))
    finally:
        keras.config.set_floatx("float32")
    np.testing.assert_allclose(value, oracles.cross_entropy(label, logits), rtol=1e-5)


@pytest.mark.parametrize("penalised", [False, True])
def test_another_ignored_id(penalised):
    def loss(ignore_id):
        base = losses.CrossEntropy(ignore_id=ignore_id)
        return losses.WithErrorPenalty(base, l1=1) if penalised else base

    label, logits = random_batch(6)
    expected = loss(255)(np.where(label == 1, 255, label), logits)
    value = loss(1)(np.where(label == 255, 1, label), logits)
    np.testing.assert_allclose(float(value), float(expected), rtol=1e-6)


# Joint heatmaps


def random_heatmaps():
    """Targets [2, 3, 4, 3] with invisible channels, raw outputs."""
    rng = np.random.default_rng(0)
    target = rng.uniform(0, 1, (2, 3, 4, 3)).astype("float32")
    target[0, :, :, 1] = -1
    target[1, :, :, :2] = -1
    return target, rng.normal(0, 3, target.shape).astype("float32")


@pytest.mark.parametrize("kind", ["sigmoid", "mse"])
def test_joint_heatmaps(kind):
    target, heatmaps = random_heatmaps()
    loss = losses.JointHeatmaps(kind)
    value, gradient = value_and_gradient(loss, target, heatmaps)

    def oracle(x):
        return oracles.joint_heatmaps(target, x, kind)

    np.testing.assert_allclose(value, oracle(heatmaps), rtol=1e-5)
    expected = oracles.gradient(oracle, heatmaps.astype(float))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(gradient[target < 0], 0)
    value, gradient = value_and_gradient(loss, np.full_like(target, -1), heatmaps)
    assert value == 0  # without a visible joint
    np.testing.assert_array_equal(gradient, 0)


def test_joint_heatmaps_of_huge_logits():
    """Sigmoid cross entropy of x = 1e4: x where y = 0, 0 where y = 1."""
    heatmaps = np.full((1, 1, 2, 1), 1e4, "float32")
    target = np.array([0.0, 1.0], "float32").reshape(1, 1, 2, 1)
    value, gradient = value_and_gradient(losses.JointHeatmaps(), target, heatmaps)
    np.testing.assert_allclose(value, 5e3)
    np.testing.assert_allclose(gradient.ravel(), [0.5, 0], atol=1e-6)


# In a model


def two_headed_net(joints=False):
    """[8, 6, 3] -> logits [8, 6, 4], sub_logits [4, 3, 4], perhaps heatmaps."""
    image = keras.Input((8, 6, 3))
    small = keras.layers.Conv2D(5, 3, 2, padding="same", activation="relu")(image)
    heads = {
        "logits": keras.layers.Conv2D(4, 1, name="logits")(image),
        "sub_logits": keras.layers.Conv2D(4, 1, name="sub_logits")(small),
    }
    if joints:
        heads["joints0_heatmaps"] = keras.layers.Conv2D(2, 1, name="joints0_heatmaps")(
            small
        )
    return keras.Model(image, heads)


def one_headed_net():
    image = keras.Input((8, 6, 3))
    return keras.Model(image, keras.layers.Conv2D(4, 1)(image))


def images_and_labels(number=6):
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 2, 3, 255], (number, 8, 6)).astype("uint8")
    return rng.normal(size=(number, 8, 6, 3)).astype("float32"), label


@pytest.mark.parametrize("name", ["outer", "with penalty"])
def test_trains_every_head_of_a_net(name):
    loss, oracle = EVERY_LOSS[name]
    net = two_headed_net()
    head_losses = losses.for_heads(net, loss)
    assert head_losses == {"logits": loss, "sub_logits": loss}
    weights = {"logits": 1.0, "sub_logits": 0.4}
    net.compile(keras.optimizers.SGD(0.01), loss=head_losses, loss_weights=weights)
    images, label = images_and_labels()
    labels = dict.fromkeys(weights, label)
    predictions = net.predict(images, verbose=0)
    logs = net.evaluate(images, labels, batch_size=6, verbose=0, return_dict=True)
    # Each head against the label at its own size, then the weighted sum.
    expected = {head: oracle(label, predictions[head]) for head in weights}
    for head in weights:
        np.testing.assert_allclose(logs[f"{head}_loss"], expected[head], rtol=1e-4)
    total = expected["logits"] + 0.4 * expected["sub_logits"]
    np.testing.assert_allclose(logs["loss"], total, rtol=1e-4)
    history = net.fit(images, labels, batch_size=6, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_icnet_branches_add_up():
    """0.16 L4 + 0.4 L24 + L of (1.2, 0.9, 0.7) is 1.252.

    Two classes and logits (0, x) give the loss l where x = log(e^l - 1).
    """
    wanted = {"sub4_logits": (0.16, 1.2), "sub24_logits": (0.4, 0.9)}
    wanted["logits"] = (1.0, 0.7)
    image = keras.Input((2, 3, 2))
    heads = {}
    for head, (_, value) in wanted.items():
        scale = keras.layers.Rescaling([0.0, np.log(np.exp(value) - 1)], name=head)
        heads[head] = scale(image)
    net = keras.Model(image, heads)
    weights = nets.head_weights(net)
    net.compile(**losses.compile_arguments(net, loss_weights=weights))
    label = np.zeros((4, 2, 3), "uint8")
    logs = net.evaluate(
        np.ones((4, 2, 3, 2)), dict.fromkeys(wanted, label), verbose=0, return_dict=True
    )
    np.testing.assert_allclose(logs["loss"], 1.252, rtol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_the_heads_of_a_net_are_known_by_their_names(name):
    """Nets that share a builder have the same heads, and no two nets differ in one."""
    expected = {head: spec.loss_weight for head, spec in nets.heads(name, 4).items()}
    net = SimpleNamespace(output=dict.fromkeys(expected))
    assert nets.head_weights(net) == expected


def test_an_own_net_is_compiled_with_what_it_is_given():
    net = two_headed_net(joints=True)
    found = losses.compile_arguments(net)
    assert isinstance(found["loss"]["logits"], losses.CrossEntropy)
    assert found["loss_weights"] == dict.fromkeys(net.output, 1.0)
    weights = {"logits": 1.0, "sub_logits": 0.5, "joints0_heatmaps": 2.0}
    found = losses.compile_arguments(
        net, losses.Dice(), loss_weights=weights, direct_weights=W1
    )
    assert isinstance(found["loss"]["sub_logits"], losses.Dice)
    assert found["loss_weights"] == weights
    metric = found["metrics"]["logits"]
    assert (metric.num_classes, metric.resize) == (4, "labels")
    assert metric.direct_weights == W1


def test_heads_of_heatmaps_have_the_joint_loss():
    net = two_headed_net(joints=True)
    assert isinstance(
        losses.for_heads(net, CE)["joints0_heatmaps"], losses.JointHeatmaps
    )
    mse = losses.JointHeatmaps("mse")
    head_losses = losses.for_heads(net, CE, mse)
    assert head_losses == {"logits": CE, "sub_logits": CE, "joints0_heatmaps": mse}
    net.compile("sgd", loss=head_losses)
    images, label = images_and_labels()
    target = np.random.default_rng(1).uniform(0, 1, (6, 4, 3, 2)).astype("float32")
    target[2:, :, :, 1] = -1
    labels = {"logits": label, "sub_logits": label, "joints0_heatmaps": target}
    heatmaps = net.predict(images, verbose=0)["joints0_heatmaps"]
    logs = net.evaluate(images, labels, batch_size=6, verbose=0, return_dict=True)
    expected = oracles.joint_heatmaps(target, heatmaps, "mse")
    np.testing.assert_allclose(logs["joints0_heatmaps_loss"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        losses.CrossEntropy(np.array(W1), "direct", "weights", ignore_id=0, name="l"),
        losses.Dice(ignore_id=7),
        losses.Focal(gamma=1.5, alpha=0.7, ignore_id=9),
        losses.CrossEntropy(smoothing=0.3),
        losses.HardPixels(0.5, 0.2, ignore_id=4),
        losses.Lovasz(ignore_id=4),
        losses.Tversky(0.1, 0.2, ignore_id=4),
        losses.Sum(losses.CrossEntropy(W1, ignore_id=5), losses.Dice(ignore_id=5), 0.3),
        losses.WithErrorPenalty(losses.CrossEntropy(W2, ignore_id=3), 0.5, 0.25),
        losses.JointHeatmaps("mse", name="joints"),
    ],
)
def test_survives_serialisation(loss):
    config = keras.saving.serialize_keras_object(loss)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(loss)
    assert copy.get_config() == loss.get_config()
    if not isinstance(loss, losses.JointHeatmaps):
        label, logits = random_batch(7)
        label %= 4
        assert float(copy(label, logits)) == float(loss(label, logits))


def test_compiled_model_is_saved_and_loaded(tmp_path):
    net = two_headed_net()
    loss = losses.WithErrorPenalty(losses.CrossEntropy(W1), l1=0.5)
    net.compile("sgd", loss=losses.for_heads(net, loss))
    images, label = images_and_labels()
    labels = {"logits": label, "sub_logits": label}
    before = net.evaluate(images, labels, verbose=0)
    net.save(tmp_path / "net.keras")
    copy = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(copy.evaluate(images, labels, verbose=0), before)


def test_penalties_on_kernels_are_not_of_the_prediction():
    settings = LossSettings(l1=0.5, l2=0.5, penalise="kernels")
    assert type(losses.build(settings, None)) is losses.CrossEntropy
    settings = LossSettings(l1=0.5, penalise="error")
    assert type(losses.build(settings, None)) is losses.WithErrorPenalty


def test_penalise_kernels():
    image = keras.Input((1, 1, 2))
    inner = keras.Sequential([keras.layers.Conv2D(1, 1, name="inner")])
    output = keras.layers.Conv2D(2, 1, name="logits")(inner(image))
    net = keras.Model(image, {"logits": output})
    net.set_weights(
        [
            np.array([3.0, -1.0]).reshape(1, 1, 2, 1),
            np.array([100.0]),
            np.array([2.0, -4.0]).reshape(1, 1, 1, 2),
            np.array([100.0, 100.0]),
        ]
    )
    losses.penalise_kernels(net, l1=0.5, l2=0.1)
    net.compile("sgd", loss=losses.for_heads(net, CE))
    logs = net.evaluate(
        np.zeros((2, 1, 1, 2)),
        {"logits": np.full((2, 1, 1), 255, "uint8")},
        verbose=0,
        return_dict=True,
    )
    # mean |w| = (3 + 1 + 2 + 4) / 4, mean w^2 = (9 + 1 + 4 + 16) / 4; no biases.
    np.testing.assert_allclose(logs["loss"], 0.5 * 2.5 + 0.1 * 7.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: losses.CrossEntropy(W1)(LABEL, LOGITS[..., :3]), "4"),
        (
            lambda: losses.for_heads(two_headed_net(), losses.CrossEntropy([1])),
            "logits",
        ),
        (lambda: losses.for_heads(one_headed_net(), CE), "dict"),
        (lambda: losses.CrossEntropy([1, -1]), "-1"),
        (lambda: losses.CrossEntropy([1, np.nan]), "nan"),
        (lambda: losses.CrossEntropy([[1, 1]]), "class weights"),
        (lambda: losses.CrossEntropy(strategy="inner"), "inner"),
        (lambda: losses.CrossEntropy(normalise="mean"), "mean"),
        (lambda: losses.Focal(gamma=-1), "gamma"),
        (lambda: losses.Focal(alpha=float("inf")), "alpha"),
        (lambda: losses.WithErrorPenalty(CE, l1=-0.5), "l1"),
        (lambda: losses.WithErrorPenalty("ce"), "ce"),
        (lambda: losses.Sum(CE, "dice"), "dice"),
        (lambda: losses.Sum(CE, losses.Dice(ignore_id=3)), "the id 3"),
        (lambda: losses.CrossEntropy(smoothing=1.5), "smoothing"),
        (lambda: losses.HardPixels(share=-1), "share"),
        (lambda: losses.Tversky(false_negatives=-1), "false_negatives"),
        (lambda: losses.JointHeatmaps("l1"), "l1"),
        (lambda: losses.JointHeatmaps()(LOGITS[..., :2], LOGITS), "joint_heatmaps"),
        (lambda: CE(LABEL[..., None], LOGITS), "cross_entropy"),
        (lambda: CE(LABEL, LOGITS, sample_weight=np.ones(1)), "sample_weight"),
    ],
)
def test_wrong_use_is_refused_by_name(make, named):
    with pytest.raises(UsageError, match=named):
        make()
