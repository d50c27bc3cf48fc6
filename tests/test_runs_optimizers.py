"""The optimizers' two rules, against arithmetic by hand and PyTorch."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seg.config import Config
from keras_seg.runs import optimizers


def config(**optimizer):
    optimizer = {"lr": 0.1, "schedule": "constant"} | optimizer
    return Config(net="icnet", data={"size": (64, 64)}, steps=10, optimizer=optimizer)


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
