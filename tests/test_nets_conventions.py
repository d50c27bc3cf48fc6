"""Kernels, batch norm and input of every network, as its document has them."""

import keras
import pytest
from outlines import outline

from keras_seg import nets

GLOROT, HE = "GlorotUniform", "HeNormal"
# Name: kernel initialiser, batch norm's momentum and epsilon, input normalisation.
TABLE = {
    "icnet": (GLOROT, 0.95, 1e-5, "bgr_minus_mean"),
    "segnet_basic": (HE, 0.99, 1e-3, "rgb_255"),
    "segnet": (HE, 0.99, 1e-3, "bgr_minus_mean"),
    "hourglass": ("GlorotNormal", 0.9, 1e-5, "unit"),
    "fcn": (HE, None, None, "unit"),
    "unet": (HE, None, None, "unit"),
    "unet_bn": (HE, 0.99, 1e-3, "unit"),
    "attention_unet": (HE, 0.99, 1e-3, "unit"),
    "fcn_strided": (GLOROT, 0.9, 1e-5, "imagenet"),
    "fcn_strided_prelu": (GLOROT, 0.9, 1e-5, "imagenet"),
    "fcn_resnet50": (GLOROT, 0.9, 1e-5, "bgr_minus_mean"),
    "unet_slim": (GLOROT, 0.9, 1e-5, "imagenet"),
    "fcn_attention": (HE, 0.9, 1e-5, "imagenet"),
    "fcn_dilated_tanh": (GLOROT, 0.9, 1e-5, "imagenet"),
    "fcn_resnet34": (GLOROT, 0.9, 1e-5, "imagenet"),
    "unet_valid": (GLOROT, 0.9, 1e-5, "imagenet"),
}
# CLOTH and ATTN: skip scores start at zero, upsampled scores bilinearly.
OTHER_KERNELS = {
    ("fcn", "score_pool4"): "Zeros",
    ("fcn", "score_pool3"): "Zeros",
    ("fcn", "score_stride16_up"): "BilinearKernel",
    ("fcn", "score_stride8_up"): "BilinearKernel",
    ("fcn", "logits"): "BilinearKernel",
}


@pytest.mark.parametrize("name", nets.NETS)
def test_kernels_batch_norm_and_input(name):
    initializer, momentum, epsilon, preprocess = TABLE[name]
    assert nets.get(name).preprocess == preprocess
    side = nets.padded_size(name, (144, 144))[0]
    model = outline(name, (side, side), 3)
    kernels, norms = {}, set()
    for layer in model.layers:
        if hasattr(layer, "kernel_initializer"):
            kernels[layer.name] = type(layer.kernel_initializer).__name__
        elif isinstance(layer, keras.layers.BatchNormalization):
            norms.add((layer.momentum, layer.epsilon))
    assert kernels == {
        layer: OTHER_KERNELS.get((name, layer), initializer) for layer in kernels
    }
    assert norms == ({(momentum, epsilon)} if momentum else set())


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("unet_bn", "bn", "relu"),
        ("attention_unet", "bn", "relu"),
        ("fcn_strided_prelu", "bn", "prelu"),
        ("fcn_resnet50", "bn", "relu"),
        ("unet_slim", "bn", "relu"),
        ("fcn_attention", "bn", "relu"),
        ("fcn_resnet34", "relu", "bn"),  # its decoder; VOC07 normalises last
        ("fcn_dilated_tanh", "tanh", "bn"),
        ("unet_valid", "relu", "bn"),
    ],
)
def test_order_of_batch_norm_and_activation(name, first, second):
    model = outline(name, (160, 160), 3)
    units = [
        layer.name.removesuffix(f"_{second}")
        for layer in model.layers
        if layer.name.endswith(f"_{second}")
        and (name != "fcn_resnet34" or layer.name.startswith("dec"))
        and not layer.name.startswith("gate")
    ]
    assert len(units) >= 5
    for unit in units:
        before = model.get_layer(f"{unit}_{second}").input
        assert before is model.get_layer(f"{unit}_{first}").output
