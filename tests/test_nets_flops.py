"""Operations by hand; test_summary holds those of whole networks."""

import keras

from keras_seg import nets
from keras_seg.nets import fcn_dilated_tanh, flops


def test_layers_by_hand():
    image = keras.Input((9, 12, 3))
    x = keras.layers.Conv2D(5, (3, 2), strides=3)(image)  # to 3 x 4
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Conv2DTranspose(7, 4, strides=2)(x)
    x = fcn_dilated_tanh.StridedDilatedDeconv(2, 3)(x)  # from 8 x 10
    x = keras.layers.Dense(6)(keras.layers.GlobalAveragePooling2D()(x))
    inner = keras.Model(image, x)
    outer = keras.Model(image, inner(image))

    conv = 3 * 4 * (3 * 2 * 3 * 5)
    transposed = 3 * 4 * (4 * 4 * 5 * 7)
    dilated = 8 * 10 * (3 * 3 * 7 * 2)
    dense = 2 * 6
    assert flops.forward(outer) == 2 * (conv + transposed + dilated + dense)


def test_recomputed_units_cost_what_plain_ones_do():
    knobs = {"stacks": 1, "depth": 1, "features": 8, "stem": 4}
    plain, recomputed = (
        nets.build("hourglass", (8, 12, 3), num_classes=3, remat=remat, **knobs)
        for remat in (False, True)
    )
    assert flops.forward(plain) == flops.forward(recomputed) > 0
