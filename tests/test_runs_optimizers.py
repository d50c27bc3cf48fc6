"""The optimizers' rules, against arithmetic by hand and PyTorch."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seg import backend
from keras_seg.config import Config
from keras_seg.errors import UsageError
from keras_seg.runs import optimizers


def config(net="icnet", **optimizer):
    optimizer = {"lr": 0.1, "schedule": "constant"} | optimizer
    return Config(net=net, data={"size": (64, 64)}, steps=10, optimizer=optimizer)


def variables(seed=0):
    """A convolution's kernel and bias and a batch norm's gamma and beta."""
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (2, 3), "bias": (3,), "gamma": (3,), "beta": (3,)}
    return [
        keras.Variable(rng.normal(size=shape), name=name, dtype="float32")
        for name, shape in shapes.items()
    ]


def gradients(step):
    rng = np.random.default_rng(100 + step)
    shapes = [(2, 3), (3,), (3,), (3,)]
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def apply(settings, steps):
    found = variables()
    optimizer = optimizers.build(settings, found)
    trail = []
    for step in range(steps):
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients(step)], found)
        trail.append([np.array(v.value) for v in found])
    return trail


def test_weight_decay_is_added_to_the_gradient_of_kernels_only():
    """SGD with momentum by hand: v = m v - lr (g + wd w); w = w + v."""
    lr, momentum, decay = 0.1, 0.9, 0.05
    found = apply(config(momentum=momentum, weight_decay=decay), 3)
    weights = [np.array(v.value) for v in variables()]
    speeds = [np.zeros_like(w) for w in weights]
    for step in range(3):
        for k, gradient in enumerate(gradients(step)):
            pull = decay * weights[k] if k == 0 else 0.0
            speeds[k] = momentum * speeds[k] - lr * (gradient + pull)
            weights[k] = weights[k] + speeds[k]
        for mine, expected in zip(found[step], weights):
            np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(backend.name() != "tensorflow", reason="of TensorFlow")
@pytest.mark.parametrize(
    ("name", "operation", "tolerance"),
    [("sgd", "ResourceApplyKerasMomentum", 0), ("adam", "ResourceApplyAdam", 3e-6)],
)
def test_a_weight_is_updated_by_one_operation_to_keras_values(
    name, operation, tolerance
):
    """SGD to the bit. Adam's 1 - 0.999 is that of float32, 1.3e-5 from 0.001: its root
    changes three steps of at most 0.1 by 2e-6.
    """
    import tensorflow as tf

    kind = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[name]
    options = {"sgd": {"momentum": 0.9}, "adam": {"epsilon": 1e-8}}[name]
    mine, theirs = variables(), variables()
    ours = optimizers.build(config(name=name, **options), mine)
    peer = kind(0.1, **options)
    peer.build(theirs)
    update = tf.function(lambda slopes: ours.apply(slopes, mine))
    for step in range(3):
        slopes = [ops.convert_to_tensor(g) for g in gradients(step)]
        update(slopes)
        peer.apply(slopes, theirs)
        for one, other in zip(mine, theirs):
            np.testing.assert_allclose(one, np.asarray(other), 0, tolerance)
    graph = update.get_concrete_function(slopes).graph
    kinds = [one.type for one in graph.get_operations()]
    assert kinds.count(operation) == 4


@pytest.mark.peers
@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop"])
def test_weight_decay_on_all_is_torchs(name):
    torch = pytest.importorskip("torch")
    settings = config(
        name=name, lr=0.01, weight_decay=0.1, decay_on="all", epsilon=1e-8
    )
    found = apply(settings, 4)
    parameters = [torch.nn.Parameter(torch.tensor(np.array(v))) for v in variables()]
    if name == "adam":
        peer = torch.optim.Adam(parameters, 0.01, weight_decay=0.1, eps=1e-8)
    elif name == "sgd":
        peer = torch.optim.SGD(parameters, 0.01, momentum=0.9, weight_decay=0.1)
    else:
        peer = torch.optim.RMSprop(parameters, 0.01, 0.99, 1e-8, weight_decay=0.1)
    for step in range(4):
        for parameter, gradient in zip(parameters, gradients(step)):
            parameter.grad = torch.tensor(gradient)
        peer.step()
        for mine, theirs in zip(found[step], parameters):
            np.testing.assert_allclose(
                mine, theirs.detach().numpy(), rtol=2e-4, atol=2e-5
            )


@pytest.mark.peers
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("decay_on", ["kernels", "all"])
def test_adamw_with_clipping_and_warm_up_is_torchs(decay_on, accumulate):
    """The clipped norm is 1.5 of gradients whose norm is 2 to 4."""
    torch = pytest.importorskip("torch")
    settings = config(
        name="adamw",
        lr=0.02,
        weight_decay=0.3,
        decay_on=decay_on,
        clip_norm=1.5,
        warmup=0.3,
        accumulate=accumulate,
    )
    found = apply(settings, 4 * accumulate)[accumulate - 1 :: accumulate]
    parameters = [torch.nn.Parameter(torch.tensor(np.array(v))) for v in variables()]
    rest = {"params": parameters[1:], "weight_decay": 0.3 * (decay_on == "all")}
    groups = [{"params": parameters[:1]}, rest]
    peer = torch.optim.AdamW(groups, 0.02, eps=1e-8, weight_decay=0.3)
    for step in range(4):
        batches = [gradients(step * accumulate + k) for k in range(accumulate)]
        for parameter, each in zip(parameters, zip(*batches)):
            parameter.grad = torch.tensor(np.mean(each, axis=0))
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.5)
        assert norm > 1.6
        for group in peer.param_groups:
            group["lr"] = 0.02 * min(1, (step + 1) / 3)
        peer.step()
        for mine, theirs in zip(found[step], parameters):
            np.testing.assert_allclose(
                mine, theirs.detach().numpy(), rtol=2e-4, atol=2e-5
            )


def test_gradients_below_the_norm_are_left_as_they_are():
    free, clipped = (apply(config(clip_norm=norm), 2) for norm in (0.0, 100.0))
    for mine, expected in zip(clipped[1], free[1]):
        np.testing.assert_allclose(mine, expected, rtol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_averages_keep_more_of_themselves_from_step_to_step(accumulate):
    """w1; then t / (t + 9) of the average of t + 1 steps, up to 0.2."""
    weights = variables()
    settings = config(momentum=0.0, ema=0.2, accumulate=accumulate)
    optimizer = optimizers.build(settings, weights)
    expected = None
    for step in range(5 * accumulate):
        gradient = [ops.convert_to_tensor(g) for g in gradients(step)]
        optimizer.apply(gradient, weights)
        found = [np.array(v.value) for v in weights]
        if step % accumulate == accumulate - 1:
            update = step // accumulate
            kept = [0, 1 / 10, 2 / 11, 0.2, 0.2][update]
            if expected is None:
                expected = found
            expected = [kept * a + (1 - kept) * w for a, w in zip(expected, found)]
        if expected is not None:
            for (weight, average), mean in zip(
                optimizers.averages(optimizer), expected
            ):
                np.testing.assert_allclose(average, mean, rtol=1e-5, atol=1e-6)
                assert any(weight is one for one in weights)
    before = [np.array(v.value) for v in weights]
    optimizer.finalize_variable_values(weights)
    for weight, value in zip(weights, before):
        np.testing.assert_array_equal(weight, value)
    assert list(optimizers.averages(optimizers.build(config(), weights))) == []


@pytest.mark.peers
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_encoder_learns_at_its_own_rate(name):
    torch = pytest.importorskip("torch")
    shapes = {"enc1_conv1/kernel": (2, 3), "dec1_conv1/kernel": (3, 2)}
    rng = np.random.default_rng(0)
    start = {p: rng.normal(size=shape) for p, shape in shapes.items()}
    mine = []
    for path, value in start.items():
        with keras.name_scope(path.partition("/")[0]):
            mine.append(keras.Variable(value, name="kernel", dtype="float32"))
    assert [v.path for v in mine] == list(shapes)
    settings = config(
        "segnet", name=name, lr=0.1, encoder_lr=0.2, weight_decay=0.1, momentum=0.9
    )
    optimizer = optimizers.build(settings, mine)
    parameters = [
        torch.nn.Parameter(torch.tensor(v, dtype=torch.float32)) for v in start.values()
    ]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, (0.02, 0.1))]
    if name == "sgd":
        peer = torch.optim.SGD(groups, 0.1, momentum=0.9, weight_decay=0.1)
    else:
        peer = torch.optim.AdamW(groups, 0.1, eps=1e-8, weight_decay=0.1)
    for _ in range(3):
        slopes = [rng.normal(size=v.shape).astype("float32") for v in parameters]
        optimizer.apply([ops.convert_to_tensor(g) for g in slopes], mine)
        for parameter, slope in zip(parameters, slopes):
            parameter.grad = torch.tensor(slope)
        peer.step()
    for one, other in zip(mine, parameters):
        np.testing.assert_allclose(one, other.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_rate_of_an_encoder_that_is_not_there_is_refused():
    for net, words in (
        ("unet", "no pretrained weights are known for unet"),
        ("segnet", "encoder of segnet is not trained"),
    ):
        with pytest.raises(UsageError, match=words):
            optimizers.build(config(net, encoder_lr=0.1), variables())


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
def test_gamma_and_beta_rest_until_bn_start(name):
    trail = apply(config(name=name, bn_start=2), 4)
    start = [np.array(v.value) for v in variables()]
    for step, (kernel, bias, gamma, beta) in enumerate(trail):
        assert not np.array_equal(kernel, start[0])
        assert not np.array_equal(bias, start[1])
        assert np.array_equal(gamma, start[2]) == (step < 2)
        assert np.array_equal(beta, start[3]) == (step < 2)


def test_accumulated_batches_are_one_step_with_the_mean_gradient():
    settings = config(
        momentum=0.0,
        accumulate=2,
        weight_decay=0.05,
        schedule="exponential",
        decay_every=1,
        decay_rate=0.5,
        bn_start=1,
    )
    trail = apply(settings, 4)
    weights = [np.array(v.value) for v in variables()]
    np.testing.assert_array_equal(trail[0][0], weights[0])  # only gathered so far
    for update, lr in enumerate((0.1, 0.05)):
        both = zip(gradients(2 * update), gradients(2 * update + 1))
        for k, (first, second) in enumerate(both):
            rests = k >= 2 and update < 1
            pull = 0.05 * weights[k] if k == 0 else 0.0
            step = lr * ((first + second) / 2 + pull)
            weights[k] = weights[k] - (0 if rests else step)
        for mine, expected in zip(trail[2 * update + 1], weights):
            np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)
