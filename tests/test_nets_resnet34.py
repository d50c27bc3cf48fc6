"""ResNet34 as an encoder: its own count, freezing."""

import keras
import numpy as np
import tensorflow as tf
from outlines import count, outline

from keras_seg import nets
from keras_seg.nets.fcn_resnet34 import resnet34


def test_encoder_has_the_weights_of_torchvisions():
    image = keras.Input((224, 224, 3))
    with keras.StatelessScope(initialize_variables=False):
        encoder = keras.Model(image, resnet34(image))
    assert encoder.output.shape == (None, 7, 7, 512)
    assert count(encoder.trainable_weights) == 21_284_672  # 21,797,672 less fc
    assert count(encoder.weights) == 21_301_696


def test_doubled_filters_widen_the_decoder_only():
    model = outline("fcn_resnet34", (32, 32), 21, filter_scale=2)
    widths = {
        layer.name: layer.filters for layer in model.layers if hasattr(layer, "filters")
    }
    assert widths["layer4_2_conv2"] == 512
    assert widths["dec1_deconv"] == 1024


def test_frozen_encoder_keeps_weights_and_statistics():
    model = nets.build("fcn_resnet34", (32, 64, 3), 3, freeze=True)
    encoder = [w for w in model.weights if w.path.startswith(("conv1", "bn1", "layer"))]
    assert count(encoder) == 21_301_696
    assert not [w.path for w in encoder if w.trainable]
    assert count(model.trainable_weights) == 25_215_381 - 21_284_672 - 33 * 18
    before = [np.array(weight) for weight in encoder]
    image = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype("float32")
    label = np.zeros((2, 32, 64), "int32")
    model.compile(
        "sgd", {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    )
    model.train_on_batch(image, {"logits": label})
    for weight, value in zip(encoder, before):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)
    assert tf.reduce_any(model.get_layer("dec1_bn").moving_mean != 0)
