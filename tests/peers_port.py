"""The comparison of a network with its PyTorch twin."""

import numpy as np
import torch


def randomise(model, seed=0):
    """Weights that leave no layer at zero or one: biases, gamma, beta, statistics."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.path.split("/")[-1]
        if name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif name != "kernel":
            weight.assign(rng.normal(0, 0.1, weight.shape))


def check_agreement(model, twin, image, heads, tolerance):
    """Equal outputs, in inference and in training mode of batch norm.

    The twin computes in float64, so that the only rounding is the model's own.

    Args:
        twin: subclass of Twin; it must use every weight of the model.
        image: float32 [B, H, W, C].
        heads: names of the outputs to compare.
        tolerance: largest difference, as a share of the largest absolute output.
    """
    randomise(model)
    twin = twin(model)
    channels_first = torch.tensor(image.transpose(0, 3, 1, 2)).double()
    for training in (False, True):
        twin.training = training
        expected = twin.forward(channels_first)
        outputs = model(image, training=training)
        assert set(outputs) == set(expected)
        assert not twin.unused
        for head in heads:
            tensor = expected[head].numpy().transpose(0, 2, 3, 1)
            atol, case = tolerance * np.abs(tensor).max(), f"{head}, {training=}"
            np.testing.assert_allclose(outputs[head], tensor, 0, atol, err_msg=case)
