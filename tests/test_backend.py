"""What `backend.start` changes in TensorFlow: faster operations, the same numbers."""

import os

import keras
import naive_convolution
import numpy as np
import pytest

from keras_seg import backend
from keras_seg.backend import convolution

tf = pytest.importorskip("tensorflow")
if backend.name() != "tensorflow":
    pytest.skip("of TensorFlow", allow_module_level=True)


@pytest.fixture(autouse=True)
def _started():
    backend.start(0, 2)


@pytest.mark.parametrize(
    ("flags", "capabilities", "expected"),
    [
        ("avx2 avx512f", [], "float32"),
        ("avx2 avx512f avx512_bf16", [], "mixed_bfloat16"),
        ("amx_bf16 avx2", [], "mixed_bfloat16"),
        ("avx2", [9.0], "mixed_bfloat16"),
        ("avx512_bf16", [9.0, 7.5], "float32"),  # the GPUs compute, not the CPU
    ],
)
def test_auto_is_bfloat16_where_the_machine_has_it(
    monkeypatch, flags, capabilities, expected
):
    monkeypatch.setattr(backend, "processor", lambda: f"Model ({flags} sse4_1)")
    monkeypatch.setattr(backend, "_compute_capabilities", lambda: capabilities)
    assert backend.resolved_precision("auto") == expected
    assert backend.resolved_precision("float32") == "float32"
    if not capabilities:  # the processor computes, as in this test
        slow = backend.without_bfloat16()
        assert (slow == "") == (expected == "mixed_bfloat16")


def test_a_processor_that_is_not_known_is_not_called_slow(monkeypatch):
    monkeypatch.setattr(backend, "processor", lambda: "arm64")
    assert backend.without_bfloat16() == ""


@pytest.mark.parametrize(("capability", "slow"), [((7, 5), "this GPU"), ((9, 0), "")])
def test_a_gpu_is_slow_below_capability_8(monkeypatch, capability, slow):
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: details
    )
    assert backend.without_bfloat16() == slow


def test_only_gpus_that_may_be_used_are_asked(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        '#!/bin/sh\ncase "$*" in *--id=1*) echo 8.0;; *) echo 7.5; echo 8.0;; esac\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert backend._compute_capabilities() == [7.5, 8.0]
    for visible, found in (("1", [8.0]), ("", []), ("-1", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert backend._compute_capabilities() == found
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool.write_text("#!/bin/sh\necho No devices were found\nexit 6\n")
    assert backend._compute_capabilities() == []


def operations(function, *inputs) -> set[str]:
    """The kinds of operations in the graph of a function."""
    graph = tf.function(function).get_concrete_function(*inputs).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize(
    ("size", "kernel_size", "dilation"),
    [
        ((7, 9), 3, 2),
        ((5, 4), 3, 4),  # the outer rows' taps see the image's edge, the columns' none
        ((3, 3), 3, 4),  # the middle tap alone
        ((6, 5), 5, 2),
        ((6, 5), 5, 3),  # a pair of taps is left out
    ],
)
def test_dilated_convolutions_are_one_operation(size, kernel_size, dilation):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *size, 3)).astype("float32")
    layer = keras.layers.Conv2D(
        4, kernel_size, padding="same", dilation_rate=dilation, bias_initializer="ones"
    )
    layer.build(image.shape)
    kernel, bias = map(np.asarray, layer.get_weights())
    found = layer(image)
    padding = dilation * (kernel_size // 2)
    expected = naive_convolution.conv(image, kernel, bias, 1, padding, dilation)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    kinds = operations(layer, tf.constant(image))
    assert "Conv2D" in kinds
    assert "SpaceToBatchND" not in kinds


def test_the_gradient_of_a_tap_that_sees_zeros_is_zero():
    image = tf.random.stateless_normal((2, 3, 5, 2), (0, 1))
    layer = keras.layers.Conv2D(2, 3, padding="same", dilation_rate=4)
    with tf.GradientTape() as tape:
        result = tf.reduce_sum(layer(image))
    gradient = np.asarray(tape.gradient(result, layer.kernel.value))
    assert not gradient[[0, 2]].any()  # rows 4 above and below: there are but 3
    # The left column of taps sees the image's column 0 only, from the last column
    seen = tf.reduce_sum(image[:, :, 0], axis=(0, 1))
    np.testing.assert_allclose(gradient[1, 0], np.stack([seen, seen], 1), rtol=1e-5)


AVX2, AVX512 = "AMD EPYC (avx avx2 fma)", "AMD EPYC (avx avx2 avx512f fma)"
NATIVE = {"Conv2DBackpropFilter", "Conv2DBackpropInput"}


def gradients_of(layer, image, above, training=True):
    """By image and kernel, and the kinds of TensorFlow's own that compute them."""
    image, above = (tf.cast(one, layer.compute_dtype) for one in (image, above))

    def gradients(image):
        with tf.GradientTape() as tape:
            tape.watch(image)
            result = layer(image, training=training)
        return tape.gradient(result, [image, layer.kernel.value], above)

    return gradients(image), operations(gradients, image) & NATIVE


BY_IMAGE, BY_KERNEL = {"Conv2DBackpropInput"}, {"Conv2DBackpropFilter"}


@pytest.mark.parametrize(
    ("shape", "kernel_size", "filters", "native"),
    [
        ((3, 33, 40, 33), 3, 63, BY_IMAGE),
        ((3, 33, 40, 32), 3, 63, NATIVE),  # few channels
        ((2, 64, 70, 32), 7, 64, set()),
        ((2, 64, 66, 35), 5, 64, set()),
        ((2, 64, 65, 32), 3, 63, BY_KERNEL),
        ((1, 64, 65, 32), 3, 64, BY_IMAGE),  # one image alone
        ((1, 64, 65, 32), 7, 64, BY_IMAGE),
        ((3, 5, 7, 256), 3, 8, set()),  # 105 pixels
        ((3, 5, 7, 255), 3, 9, NATIVE),  # fewer channels
        ((3, 9, 10, 256), 3, 8, set()),
        ((10, 3, 9, 257), 5, 8, set()),  # fewer rows than the kernel has
        ((6, 17, 3, 32), 7, 64, BY_IMAGE),  # fewer columns
        ((9, 17, 2, 32), 3, 64, NATIVE),  # a tile would be wider than the image
        ((2, 9, 18, 256), 7, 9, set()),
        ((2, 17, 18, 32), 9, 64, NATIVE),  # a larger kernel
    ],
)
def test_gradients_of_convolutions_are_products_on_avx2(
    shape, kernel_size, filters, native
):
    convolution.replace(AVX512 if kernel_size == 7 else AVX2)
    image = tf.random.stateless_normal(shape, (0, 0))
    above = tf.random.stateless_normal((*shape[:3], filters), (0, 1))
    layer, double = (
        keras.layers.Conv2D(filters, kernel_size, padding="same", dtype=dtype)
        for dtype in ("float32", "float64")
    )
    for one in (layer, double):
        one.build(shape)
    double.set_weights(layer.get_weights())
    found, kinds = gradients_of(layer, image, above)
    assert kinds == native
    expected, kinds = gradients_of(double, image, above)
    assert kinds == NATIVE
    for one, other in zip(found, expected, strict=True):
        size = np.abs(other).max()
        closeness = (1e-5 if kernel_size == 3 else 2e-5) * size
        np.testing.assert_allclose(one, other, rtol=0, atol=closeness)


@pytest.mark.parametrize(
    ("processor", "dtype", "shape", "dilation", "filters", "native"),
    [
        (AVX512, "float32", (3, 9, 7, 128), 2, 128, BY_IMAGE),
        (AVX512, "float32", (2, 5, 4, 128), 4, 128, BY_IMAGE),  # taps that see nothing
        (AVX512, "float32", (1, 4, 3, 128), (3, 1), 128, BY_IMAGE),
        (AVX512, "float32", (8, 5, 4, 128), (5, 1), 128, BY_IMAGE),  # no rows above
        (AVX512, "float32", (3, 9, 7, 128), 2, 127, NATIVE),  # fewer pairs of channels
        (AVX512, "float32", (1, 13, 20, 128), 2, 128, NATIVE),  # more pixels
        (AVX512, "float32", (1, 13, 20, 512), 2, 256, BY_IMAGE),  # with many pairs
        (AVX512, "float32", (1, 32, 33, 512), 2, 256, NATIVE),
        (AVX2, "float32", (1, 13, 20, 32), 2, 33, BY_IMAGE),
        (AVX2, "float32", (1, 13, 20, 31), 2, 33, NATIVE),
        (AVX2, "float32", (1, 65, 64, 32), 2, 32, NATIVE),
        (AVX512, "mixed_bfloat16", (3, 9, 7, 65), 1, 63, NATIVE),
        (AVX512, "mixed_bfloat16", (3, 9, 7, 65), 1, 64, BY_IMAGE),
        (AVX512, "mixed_bfloat16", (3, 9, 7, 65), 2, 64, BY_IMAGE),
        (AVX512, "mixed_bfloat16", (1, 4, 5, 65), 4, 64, BY_IMAGE),
        (
            AVX512,
            "mixed_bfloat16",
            (1, 4, 5, 64),
            2,
            65,
            BY_IMAGE,
        ),  # fewer than filters
        (AVX512, "mixed_bfloat16", (8, 4, 5, 65), (1, 5), 64, BY_IMAGE),
        (AVX512, "mixed_bfloat16", (2, 16, 17, 65), 1, 64, NATIVE),
        (AVX512, "mixed_bfloat16", (1, 16, 17, 257), 1, 512, BY_IMAGE),  # many pairs
        ("arm64", "float32", (3, 9, 7, 128), 2, 128, NATIVE),
    ],
)
def test_gradients_by_kernels_of_small_images_are_products_for_each_tap(
    processor, dtype, shape, dilation, filters, native
):
    convolution.replace(processor)
    image = tf.random.stateless_normal(shape, (0, 0))
    above = tf.random.stateless_normal((*shape[:3], filters), (0, 1))
    layer = keras.layers.Conv2D(
        filters, 3, padding="same", dilation_rate=dilation, dtype=dtype
    )
    layer.build(shape)
    found, kinds = gradients_of(layer, image, above)
    assert kinds == native
    by_image, by_kernel = np.zeros(shape), np.zeros(layer.kernel.shape)
    image, above, kernel = (
        np.float64(one) for one in (image, above, layer.kernel.value)
    )
    down, right = layer.dilation_rate
    for y, x, row, column in np.ndindex(*shape[1:3], 3, 3):
        seen = y + down * (row - 1), x + right * (column - 1)
        if 0 <= seen[0] < shape[1] and 0 <= seen[1] < shape[2]:
            by_image[:, *seen] += above[:, y, x] @ kernel[row, column].T
            by_kernel[row, column] += image[:, *seen].T @ above[:, y, x]
    expected = by_image, by_kernel
    closeness = 1e-2 if dtype == "mixed_bfloat16" else 1e-5
    for one, other in zip(found, expected, strict=True):
        one, size = tf.cast(one, "float64"), np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=closeness * size)


@pytest.mark.parametrize(
    ("processor", "dtype", "shape", "filters", "is_product"),
    [
        (AVX512, "float32", (3, 5, 7, 33), 600, True),
        (AVX512, "float32", (2, 100, 101, 5), 3, True),
        (AVX2, "float32", (3, 5, 7, 128), 128, True),
        (AVX2, "float32", (3, 5, 7, 128), 129, False),  # more pairs of channels
        (AVX512, "mixed_bfloat16", (4, 64, 64, 5), 3, True),
        (AVX512, "mixed_bfloat16", (4, 64, 65, 5), 3, False),  # more pixels
        (AVX512, "float64", (3, 5, 7, 3), 2, False),
        ("arm64", "float32", (3, 5, 7, 3), 2, False),
    ],
)
def test_kernels_of_one_pixel_are_products_in_training(
    processor, dtype, shape, filters, is_product
):
    convolution.replace(processor)
    layer = keras.layers.Conv2D(filters, 1, padding="same", dtype=dtype)
    image = tf.cast(tf.random.stateless_normal(shape, (0, 0)), layer.compute_dtype)
    layer.build(shape)
    train = lambda image: layer(image, training=True)  # noqa: E731
    kinds = operations(train, image)
    assert ("Conv2D" not in kinds) == is_product
    assert "Conv2D" in operations(lambda image: layer(image, training=False), image)
    above = tf.random.stateless_normal((*shape[:3], filters), (0, 1))
    found, _ = gradients_of(layer, image, above)
    kernel = tf.cast(layer.kernel.value, "float64")[0, 0]
    pixels, above = (tf.cast(one, "float64") for one in (image, above))
    expected = (
        tf.einsum("nhwk,ck->nhwc", above, kernel),
        tf.einsum("nhwc,nhwk->ck", pixels, above)[None, None],
    )
    results = [(train(image), tf.einsum("nhwc,ck->nhwk", pixels, kernel))]
    results += zip(found, expected, strict=True)
    closeness = 2e-2 if dtype == "mixed_bfloat16" else 1e-5
    for one, other in results:
        one, size = tf.cast(one, "float64"), np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=closeness * size)


def test_large_kernels_take_fewer_products_where_predictions_stay_here():
    convolution.replace(AVX2)
    layer = keras.layers.Conv2D(33, 7, padding="same")
    image = tf.random.stateless_normal((2, 64, 66, 32), (0, 0))
    layer.build(image.shape)
    any_number = tf.TensorSpec((None, *image.shape[1:]))

    def predict(image):
        return layer(image, training=False)

    def predict_here(image):
        with backend.for_this_processor():
            return predict(image)

    assert "Pack" in operations(predict_here, any_number)
    assert "Pack" not in operations(predict, any_number)
    expected = predict(image)
    np.testing.assert_allclose(predict_here(image), expected, rtol=0, atol=1e-4)
    # A part of a dataset may be smaller: no gradient of unknown shape
    train = lambda image: layer(image, training=True)  # noqa: E731
    assert "Pack" not in operations(train, any_number)


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_the_gradient_by_a_kernel_is_summed_over_parts_of_the_batch(
    monkeypatch, at_once
):
    convolution.replace(AVX2)
    bytes_of_one = convolution._bytes_of_copies(8 * 10, 32 + 64)
    monkeypatch.setattr(convolution, "_MOST_BYTES", at_once * bytes_of_one + 1)
    monkeypatch.setattr(convolution, "_FEWEST_PAIRS", 0)
    layer = keras.layers.Conv2D(64, 3, padding="same")
    image = tf.random.stateless_normal((5, 8, 10, 32), (0, 0))
    above = tf.random.stateless_normal((5, 8, 10, 64), (0, 1))
    layer.build(image.shape)
    (_, found), _ = gradients_of(layer, image, above)
    assert layer.kernel.shape == found.shape
    expected = tf.raw_ops.Conv2DBackpropFilter(
        input=tf.cast(image, "float64"),
        filter_sizes=found.shape,
        out_backprop=tf.cast(above, "float64"),
        strides=[1, 1, 1, 1],
        padding="SAME",
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-4)


@pytest.mark.parametrize(("most", "parts"), [(5, 1), (2.5, 2), (1, 2), (0.9, 0)])
def test_a_large_kernel_meets_parts_of_the_batch(monkeypatch, most, parts):
    """Of five images; never one alone, and none where one does not fit."""
    seen, convolve = [], convolution.winograd.convolve

    def recorded(image, kernel):
        seen.append(image.shape[0])
        return convolve(image, kernel)

    monkeypatch.setattr(convolution.winograd, "convolve", recorded)
    monkeypatch.setattr(convolution, "_LARGE", 8 * 10)
    bytes_of_one = convolution._bytes_of_copies(8 * 10, 32 + 3)
    monkeypatch.setattr(convolution, "_MOST_BYTES", most * bytes_of_one)
    image = tf.random.stateless_normal((5, 8, 10, 32), (0, 0))
    kernel = tf.random.stateless_normal((7, 7, 32, 3), (0, 1))
    found = tf.function(convolution._convolve)(image, kernel)
    assert len(seen) == parts
    assert sum(seen) == (5 if parts else 0)
    assert 1 not in seen
    expected = tf.nn.conv2d(
        *(tf.cast(x, "float64") for x in (image, kernel)), 1, "SAME"
    )
    error = np.abs(found - tf.cast(expected, "float32")).max()
    assert error < 1e-4 * np.std(expected)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"kernel_size": 1}, "float32"),
        ({"kernel_size": 3}, "mixed_bfloat16"),
        ({"kernel_size": 3, "dilation_rate": 2}, "float32"),
    ],
)
def test_a_batch_of_any_size_keeps_tensorflows_convolution(options, dtype):
    convolution.replace(AVX512)
    layer = keras.layers.Conv2D(128, padding="same", dtype=dtype, **options)
    layer.build((None, 7, 9, 128))

    def gradient(image):
        with tf.GradientTape() as tape:
            result = layer(image, training=True)
        return tape.gradient(result, layer.kernel.value)

    any_number = tf.TensorSpec((None, 7, 9, 128), layer.compute_dtype)
    kinds = operations(gradient, any_number)
    assert {"Conv2D", "Conv2DBackpropFilter"} <= kinds
    assert "MatMul" not in kinds


def test_taps_that_would_not_fit_into_memory_are_not_multiplied(monkeypatch):
    convolution.replace(AVX512)
    layer = keras.layers.Conv2D(64, 3, padding="same", dtype="mixed_bfloat16")
    image = tf.random.stateless_normal((3, 9, 7, 65), (0, 0))
    above = tf.random.stateless_normal(layer(image).shape, (0, 1))
    bytes_of_parts = 9 * 2 * 3 * 9 * 7 * (65 + 64)
    for most, native in ((bytes_of_parts, BY_IMAGE), (bytes_of_parts - 1, NATIVE)):
        monkeypatch.setattr(convolution, "_MOST_BYTES", most)
        assert gradients_of(layer, image, above)[1] == native


def test_products_that_would_not_fit_into_memory_are_left_out(monkeypatch):
    convolution.replace(AVX2)
    layer = keras.layers.Conv2D(8, 3, padding="same")
    image = tf.random.stateless_normal((3, 5, 7, 256), (0, 0))
    above = tf.random.stateless_normal(layer(image).shape, (0, 1))
    bytes_of_taps = 2 * 4 * 3 * 5 * 7 * 9 * 256
    for most, native in ((bytes_of_taps, set()), (bytes_of_taps - 1, BY_IMAGE)):
        monkeypatch.setattr(convolution, "_MOST_BYTES", most)
        assert gradients_of(layer, image, above)[1] == native


@pytest.mark.parametrize(
    ("processor", "options", "training"),
    [
        ("arm64", {}, True),
        (AVX512, {}, False),
        (AVX2, {"dtype": "mixed_bfloat16"}, True),
        (AVX2, {}, False),
        (AVX2, {"strides": 2}, True),
        (AVX2, {"padding": "valid"}, True),
        (AVX2, {"kernel_size": (3, 5)}, True),
        (AVX2, {"kernel_size": 4}, True),
    ],
)
def test_other_gradients_are_tensorflows(processor, options, training):
    convolution.replace(processor)
    layer = keras.layers.Conv2D(
        **{"filters": 3, "kernel_size": 3, "padding": "same"} | options
    )
    image = tf.random.stateless_normal((2, 64, 64, 32), (0, 0))
    above = tf.random.stateless_normal(layer(image).shape, (0, 1))
    assert gradients_of(layer, image, above, training)[1] == NATIVE


def test_batch_norm_in_training_is_one_operation():
    rng = np.random.default_rng(0)
    image = (3 * rng.normal(size=(2, 3, 4, 5)) + 1).astype("float32")
    gradient_above = rng.normal(size=image.shape).astype("float32")
    layer = keras.layers.BatchNormalization(momentum=0.9, epsilon=0.01)
    layer.build(image.shape)
    gamma, beta = rng.uniform(0.5, 1.5, 5), rng.normal(size=5)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    layer.moving_mean.assign(np.full(5, 2.0))
    layer.moving_variance.assign(np.full(5, 3.0))
    x = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = layer(x, training=True)
    of_image, of_gamma, of_beta = tape.gradient(
        result, [x, layer.gamma.value, layer.beta.value], gradient_above
    )
    # By hand, in float64
    double = image.astype("float64")
    mean, variance = double.mean((0, 1, 2)), double.var((0, 1, 2))
    deviation = np.sqrt(variance + 0.01)
    normal = (double - mean) / deviation
    np.testing.assert_allclose(result, gamma * normal + beta, rtol=0, atol=5e-6)
    np.testing.assert_allclose(of_beta, gradient_above.sum((0, 1, 2)), rtol=1e-4)
    share = (gradient_above * normal).sum((0, 1, 2))
    np.testing.assert_allclose(of_gamma, share, rtol=1e-4)
    count = 2 * 3 * 4
    expected = gradient_above - gradient_above.mean((0, 1, 2)) - normal * share / count
    np.testing.assert_allclose(
        of_image, gamma / deviation * expected, rtol=0, atol=5e-6
    )
    # The biased variance, as Keras has it
    np.testing.assert_allclose(layer.moving_mean, 0.9 * 2 + 0.1 * mean, rtol=1e-6)
    moved = 0.9 * 3 + 0.1 * variance
    np.testing.assert_allclose(layer.moving_variance, moved, rtol=1e-6)
    kinds = operations(lambda x: layer(x, training=True), x)
    assert "FusedBatchNormV3" in kinds


@pytest.mark.parametrize("policy", ["float64", "mixed_bfloat16"])
def test_batch_norm_keeps_the_precision_of_its_policy(policy):
    rng = np.random.default_rng(0)
    image = (1000 + rng.normal(size=(2, 3, 4, 5))).astype("float64")
    layer = keras.layers.BatchNormalization(dtype=policy, epsilon=1e-6)
    result = layer(image, training=True)
    assert result.dtype == {"float64": "float64"}.get(policy, "bfloat16")
    normal = (image - image.mean((0, 1, 2))) / image.std((0, 1, 2))
    if policy == "float64":
        np.testing.assert_allclose(result, normal, rtol=0, atol=1e-4)


def test_batch_norm_reads_bfloat16_as_it_is():
    rng = np.random.default_rng(0)
    image = tf.cast(3 * rng.normal(size=(2, 3, 4, 5)) + 1, "bfloat16")
    above = tf.cast(rng.normal(size=image.shape), "bfloat16")
    layer = keras.layers.BatchNormalization(dtype="mixed_bfloat16", momentum=0.9)
    layer.build(image.shape)
    with tf.GradientTape() as tape:
        tape.watch(image)
        result = layer(image, training=True)
    of_image, of_gamma, of_beta = tape.gradient(
        result, [image, layer.gamma.value, layer.beta.value], above
    )
    double, gradient = np.array(image, "float64"), np.array(above, "float64")
    mean, variance = double.mean((0, 1, 2)), double.var((0, 1, 2)) + 1e-3
    normal = (double - mean) / np.sqrt(variance)
    # A bfloat16 number is within 2^-9 of what it stands for; none here exceeds 4
    close = {"rtol": 0, "atol": 4 * 2**-8}
    np.testing.assert_allclose(np.array(result, "float64"), normal, **close)
    share = (gradient * normal).mean((0, 1, 2))
    expected = gradient - gradient.mean((0, 1, 2)) - normal * share
    expected /= np.sqrt(variance)
    np.testing.assert_allclose(np.array(of_image, "float64"), expected, **close)
    # In float32
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-5)
    moved = 0.9 + 0.1 * (variance - 1e-3)
    np.testing.assert_allclose(layer.moving_variance, moved, rtol=1e-5)
    np.testing.assert_allclose(of_beta, gradient.sum((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(of_gamma, 24 * share, rtol=1e-3)
    train = tf.function(lambda x: layer(x, training=True))
    made = train.get_concrete_function(image).graph.get_operations()
    (norm,) = (one for one in made if one.type == "FusedBatchNormV3")
    assert norm.inputs[0].dtype == "bfloat16"


@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True)])
def test_batch_norm_with_constant_weights_stays_in_bfloat16(scale, center):
    rng = np.random.default_rng(0)
    layer = keras.layers.BatchNormalization(
        epsilon=0.01, scale=scale, center=center, dtype="mixed_bfloat16"
    )
    layer.build((2, 3, 4, 5))
    for one in layer.weights:
        one.assign(rng.uniform(0.5, 1.5, one.shape))
    layer.moving_mean.assign(rng.normal(0, 3, 5))
    image = rng.normal(size=(2, 3, 4, 5)) + np.asarray(layer.moving_mean)
    image = tf.cast(image, "bfloat16")

    def predict(image):
        with backend.for_this_processor(constant_weights=True):
            return layer(image, training=False)

    expected = layer(image, training=False)
    assert expected.dtype == "bfloat16"
    found = predict(image)
    assert found.dtype == "bfloat16"
    spread = np.std(tf.cast(expected, "float32"))
    error = np.abs(tf.cast(found, "float32") - tf.cast(expected, "float32"))
    assert error.max() < 0.03 * spread
    graph = tf.function(predict).get_concrete_function(image).graph
    casts = [one for one in graph.get_operations() if one.type == "Cast"]
    # Keras' own takes the image to float32 and back
    assert any(one.inputs[0].shape.rank == 4 for one in casts) == (not scale)


def test_batch_norm_that_does_not_train_uses_its_moving_statistics():
    image = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    layer = keras.layers.BatchNormalization(epsilon=0.01)
    layer.build(image.shape)
    layer.moving_mean.assign(np.full(5, 2.0))
    expected = (image - 2) / np.sqrt(1.01)
    close = {"rtol": 0, "atol": 1e-6}
    np.testing.assert_allclose(layer(image, training=False), expected, **close)
    layer.trainable = False  # frozen: in training, too
    np.testing.assert_allclose(layer(image, training=True), expected, **close)
    np.testing.assert_array_equal(layer.moving_mean, np.full(5, 2.0))


@pytest.mark.parametrize(
    ("shapes", "sizes"),
    [
        ([(7, 7, 64, 64)], [3, 2]),
        ([(64,), (3, 3, 64, 64), (1, 7, 16, 4)], [3, 2]),
        ([(5, 5, 64, 64), (7, 7, 3, 64), (64, 64)], [3, 1]),  # fast alone
    ],
)
def test_a_single_image_goes_through_wide_kernels_beside_a_copy(shapes, sizes):
    seen = []

    def predict(images):
        seen.append(len(images))
        return {"sums": images.sum(axis=(1, 2))}, images + 1

    weights = [np.zeros(shape, np.float32) for shape in shapes]
    careful = backend.beside_a_copy(predict, weights)
    images = np.random.default_rng(0).random((3, 2, 4))
    careful(images)
    sums, more = careful(images[2:])
    assert seen == sizes
    np.testing.assert_array_equal(sums["sums"], images[2:].sum(axis=(1, 2)))
    np.testing.assert_array_equal(more, images[2:] + 1)
