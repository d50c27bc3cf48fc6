"""Losses of dense labels: cross entropy, Dice, focal, error penalty, joint heatmaps.

Every loss is called as ``loss(y_true, y_pred)`` and returns one float32 scalar:

* y_true: class ids [B, H, W] of any dtype; `ignore_id` (255) pixels do not count.
* y_pred: raw logits [B, h, w, C] of any float dtype, computed on in float32.

Where the sizes differ the label is resized to the logits by nearest. A batch without
a single valid pixel has the loss 0 and a gradient of 0. An id that is neither one of
the C classes nor `ignore_id` makes the loss NaN, so that it cannot go unnoticed.

    net.compile("adam", **losses.compile_arguments(net))
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_seg.config import LOSSES, LossSettings
from keras_seg.errors import UsageError
from keras_seg.labels import IGNORE_ID
from keras_seg.metrics import ConfusionMatrix, check_shapes, resize_labels

ops: Any = keras.ops  # Keras tensors have no static types


class BatchLoss(keras.losses.Loss):
    """A loss that is one number of the whole batch, in float32: `of_batch`."""

    def __init__(self, name):
        super().__init__(name=name, dtype="float32")

    def __call__(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise UsageError(
                f"The loss {self.name} takes no sample_weight; weigh the classes."
            )
        return super().__call__(y_true, y_pred)

    def call(self, y_true, y_pred):
        # As one value, not a scalar: Keras then divides by the number of replicas.
        return ops.reshape(self.of_batch(y_true, y_pred), (1,))

    def of_batch(self, y_true, y_pred):
        """float32 scalar."""
        raise NotImplementedError

    def get_config(self):
        return {"name": self.name}


class PixelLoss(BatchLoss):
    """What the losses of labels share: the common size, the ignored pixels.

    A subclass defines `of_pixels`.

    Attributes:
        ignore_id: int. The id of pixels that do not count.
        num_classes: int, or None where the loss takes any number of classes.
    """

    num_classes = None

    def __init__(self, ignore_id, name):
        super().__init__(name)
        self.ignore_id = int(ignore_id)

    @classmethod
    def from_settings(
        cls, settings: LossSettings, weights: np.ndarray | None
    ) -> "PixelLoss":
        """The loss of a run; weights are given only where `LOSSES` says it takes them.

        Args:
            settings: the part `loss` of its configuration.
            weights: [C] class weights, or None.
        """
        build: Any = cls  # a loss that its defaults define
        return build()

    def of_batch(self, y_true, y_pred):
        check_shapes(self.name, y_true, y_pred)
        _, height, width, classes = y_pred.shape
        if self.num_classes not in (None, classes):
            raise UsageError(
                f"The loss {self.name} has {self.num_classes} class weights for "
                f"logits of {classes} classes."
            )
        label = ops.cast(resize_labels(y_true, height, width), "int32")
        known = ops.logical_and(label >= 0, label < classes)
        # NaN for an unknown id: a one-hot row of zeros would count it as perfect.
        valid = ops.where(known, 1.0, float("nan"))
        valid = ops.where(ops.equal(label, self.ignore_id), 0.0, valid)
        valid = ops.cast(valid, "float32")
        label = ops.where(known, label, 0)
        return self.of_pixels(label, valid, y_pred)

    def of_pixels(self, label, valid, logits):
        """The loss of a batch.

        Args:
            label: int32 [B, h, w], 0..C-1 everywhere.
            valid: float32 [B, h, w], 1, or 0 where the pixel is ignored.
            logits: float32 [B, h, w, C].

        Returns:
            float32 scalar.
        """
        raise NotImplementedError

    def get_config(self):
        return {**super().get_config(), "ignore_id": self.ignore_id}


@keras.saving.register_keras_serializable("keras_seg")
class CrossEntropy(PixelLoss):
    """Cross entropy with class weights, as BODY 3.1 places them.

    l = -log softmax(x)[t] at a pixel of the true class t. The loss is

    * "outer": sum over valid pixels of w_t l, divided by `normalise`: a weight
      is the importance of a class's pixels.
    * "direct": as unweighted, of the logits w * x: a weight is a temperature.

    Args:
        weights: [C] finite, not negative; None weighs all classes alike.
        strategy: "outer" or "direct".
        normalise: divide by the number of valid "pixels" (BODY), or by the sum of
            their "weights" (PyTorch's cross entropy, VOC07). With "direct" every
            pixel weighs 1 and the two are the same.
        ignore_id: int. The id of pixels that do not count.
        name: str. Keras' name of the loss.

    Raises:
        UsageError: a negative or infinite weight, an unknown strategy or normaliser.
    """

    def __init__(
        self,
        weights: ArrayLike | None = None,
        strategy: str = "outer",
        normalise: str = "pixels",
        ignore_id: int = IGNORE_ID,
        name: str = "cross_entropy",
    ):
        super().__init__(ignore_id, name)
        if strategy not in ("outer", "direct"):
            raise UsageError(f"strategy is {strategy!r}; it must be outer or direct.")
        if normalise not in ("pixels", "weights"):
            raise UsageError(
                f"normalise is {normalise!r}; it must be pixels or weights."
            )
        self.weights = None if weights is None else _checked_weights(weights)
        self.strategy = strategy
        self.normalise = normalise

    @classmethod
    def from_settings(cls, settings, weights):
        return cls(weights, settings.strategy, settings.normalise)

    @property
    def num_classes(self):
        return None if self.weights is None else len(self.weights)

    def of_pixels(self, label, valid, logits):
        pixel_weight = valid
        if self.weights is not None:
            weights = ops.convert_to_tensor(self.weights, "float32")
            if self.strategy == "direct":
                logits = logits * weights
            else:
                pixel_weight = valid * ops.take(weights, label)
        total = ops.sum(pixel_weight * _log_loss(label, logits))
        return _divide(
            total, ops.sum(valid if self.normalise == "pixels" else pixel_weight)
        )

    def get_config(self):
        return {
            **super().get_config(),
            "weights": self.weights,
            "strategy": self.strategy,
            "normalise": self.normalise,
        }


@keras.saving.register_keras_serializable("keras_seg")
class Dice(PixelLoss):
    """Soft Dice loss, per class over the whole batch (CITY 3.5).

    1 - mean over c of (2 TP_c + eps) / (sum p_c + sum y_c + eps), TP_c = sum p_c y_c,
    p = softmax(x), y one-hot, sums over the valid pixels of the batch, eps = 1e-6.
    A class without a valid pixel in the batch is left out of the mean.
    (Hard Dice is the F1 of `keras_seg.metrics.summary`.)

    Args:
        ignore_id: int. The id of pixels that do not count.
        name: str. Keras' name of the loss.
    """

    def __init__(self, ignore_id: int = IGNORE_ID, name: str = "dice"):
        super().__init__(ignore_id, name)

    def of_pixels(self, label, valid, logits):
        epsilon = 1e-6
        probability = ops.softmax(logits, axis=-1) * valid[..., None]
        truth = ops.one_hot(label, logits.shape[-1], dtype="float32")
        true_positives = ops.sum(probability * truth, axis=(0, 1, 2))  # [C]
        predicted = ops.sum(probability, axis=(0, 1, 2))
        actual = ops.sum(truth * valid[..., None], axis=(0, 1, 2))
        dice = (2 * true_positives + epsilon) / (predicted + actual + epsilon)
        # Not "> 0", which would drop the NaN of an unknown id.
        present = ops.cast(ops.not_equal(actual, 0.0), "float32")
        return _divide(ops.sum(present * (1 - dice)), ops.sum(present))


@keras.saving.register_keras_serializable("keras_seg")
class Focal(PixelLoss):
    """Focal loss, mean over valid pixels of alpha (1 - p_t)^gamma l (CLOTH 3).

    l = -log p_t, p = softmax(x), t the true class. CLOTH names no gamma and alpha:
    the defaults are those of Lin et al. 2017 and of Keras. gamma=0, alpha=1 is the
    cross entropy.

    Args:
        gamma: float >= 0. How much well classified pixels are discounted.
        alpha: float >= 0. Factor of the loss.
        ignore_id: int. The id of pixels that do not count.
        name: str. Keras' name of the loss.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float = 0.25,
        ignore_id: int = IGNORE_ID,
        name: str = "focal",
    ):
        super().__init__(ignore_id, name)
        self.gamma = _not_negative("gamma", gamma)
        self.alpha = _not_negative("alpha", alpha)

    def of_pixels(self, label, valid, logits):
        log_loss = _log_loss(label, logits)
        # 1 - p_t. The gradient of its power is infinite at 0 where gamma < 1.
        error = ops.maximum(-ops.expm1(-log_loss), 1e-7)
        loss = self.alpha * ops.power(error, self.gamma) * log_loss
        return _divide(ops.sum(valid * loss), ops.sum(valid))

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma, "alpha": self.alpha}


@keras.saving.register_keras_serializable("keras_seg")
class WithErrorPenalty(PixelLoss):
    """A loss plus penalties on the prediction error (CLOTH 3).

    base + l1 mean |p - y| + l2 mean (p - y)^2, p = softmax(x), y one-hot; the means
    are over the classes and the valid pixels. CLOTH's "L1 and L2 regularisation of
    the focal loss" is read so, because it speaks of the difference between predicted
    and correct value; `penalise_kernels` is the other reading.

    Args:
        base: one of the losses of this module.
        l1: float >= 0. Factor of the mean absolute error.
        l2: float >= 0. Factor of the mean squared error.
        name: str. Keras' name of the loss.
    """

    def __init__(
        self,
        base: PixelLoss,
        l1: float = 0.0,
        l2: float = 0.0,
        name: str = "with_error_penalty",
    ):
        if isinstance(base, dict):
            base = keras.saving.deserialize_keras_object(base)
        if not isinstance(base, PixelLoss):
            raise UsageError(f"{base!r} is no loss of labels (keras_seg.losses).")
        super().__init__(base.ignore_id, name)
        self.base = base
        self.l1 = _not_negative("l1", l1)
        self.l2 = _not_negative("l2", l2)

    @property
    def num_classes(self):
        return self.base.num_classes

    def of_pixels(self, label, valid, logits):
        classes = logits.shape[-1]
        truth = ops.one_hot(label, classes, dtype="float32")
        error = ops.softmax(logits, axis=-1) - truth
        penalty = 0.0
        if self.l1:
            penalty += self.l1 * ops.mean(ops.abs(error), axis=-1)
        if self.l2:
            penalty += self.l2 * ops.mean(ops.square(error), axis=-1)
        base = self.base.of_pixels(label, valid, logits)
        return base + _divide(ops.sum(valid * penalty), ops.sum(valid))

    def get_config(self):
        return {
            "base": keras.saving.serialize_keras_object(self.base),
            "l1": self.l1,
            "l2": self.l2,
            "name": self.name,
        }  # the ignored id is the base's


@keras.saving.register_keras_serializable("keras_seg")
class JointHeatmaps(BatchLoss):
    """Loss of a head of joint heatmaps (BODY 4.1.3, the hourglass' joint branch).

    y_true: float [B, h, w, J], Gaussians of peak 1, or -1 all over a channel of a
    sample whose joint is not visible. y_pred: float [B, h, w, J], raw. The result is
    the mean over the pixels of all visible channels; 0 where none is visible.

    Args:
        kind: "sigmoid" cross entropy (the thesis' code) or "mse" (Newell et al.).
        name: str. Keras' name of the loss.
    """

    def __init__(self, kind: str = "sigmoid", name: str = "joint_heatmaps"):
        super().__init__(name)
        if kind not in ("sigmoid", "mse"):
            raise UsageError(f"kind is {kind!r}; it must be sigmoid or mse.")
        self.kind = kind

    def of_batch(self, y_true, y_pred):
        if tuple(y_true.shape[1:]) != tuple(y_pred.shape[1:]):
            raise UsageError(
                f"The loss {self.name} got heatmaps of shape {tuple(y_true.shape)} for "
                f"a head of shape {tuple(y_pred.shape)}."
            )
        visible = ops.cast(y_true >= 0, "float32")
        if self.kind == "sigmoid":
            # log(1 + exp(x)) - x y, for any x.
            loss = ops.softplus(y_pred) - y_pred * y_true
        else:
            loss = ops.square(y_pred - y_true)
        return _divide(ops.sum(visible * loss), ops.sum(visible))

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


def build(settings: LossSettings, weights: np.ndarray | None) -> PixelLoss:
    """The loss of every label head of a run, with its penalties.

    Args:
        settings: `name` is a key of `keras_seg.config.LOSSES`.
        weights: [C] class weights (`class_weights.from_counts`), or None.
    """
    kind: type[PixelLoss] = globals()[LOSSES[settings.name].class_name]
    loss = kind.from_settings(settings, weights)
    if settings.l1 or settings.l2:
        loss = WithErrorPenalty(loss, l1=settings.l1, l2=settings.l2)
    return loss


def for_heads(
    net: keras.Model,
    base_loss: PixelLoss,
    joint_loss: keras.losses.Loss | None = None,
) -> dict[str, keras.losses.Loss]:
    """The loss of every head of a net, for `compile` (deep supervision).

    Args:
        net: a model whose output is a dict of heads.
        base_loss: the loss of the heads of class logits.
        joint_loss: the loss of the heads named joints*_heatmaps; None is
            `JointHeatmaps()`.

    Returns:
        {head: loss}.

    Raises:
        UsageError: the output is no dict, or a head has another number of classes
            than `base_loss` has weights.
    """
    if not isinstance(net.output, dict):
        raise UsageError(
            f"The output of {net.name} must be a dict of heads, as keras_seg.build "
            "makes it."
        )
    losses = {}
    for head, output in net.output.items():
        if head.startswith("joints") and head.endswith("_heatmaps"):
            losses[head] = JointHeatmaps() if joint_loss is None else joint_loss
            continue
        if base_loss.num_classes not in (None, output.shape[-1]):
            raise UsageError(
                f"There are {base_loss.num_classes} class weights for the head {head} "
                f"of {output.shape[-1]} classes."
            )
        losses[head] = base_loss
    return losses


def compile_arguments(
    net: keras.Model,
    loss: PixelLoss | None = None,
    *,
    loss_weights: Mapping[str, float] | None = None,
    direct_weights: Sequence[float] | np.ndarray | None = None,
) -> dict[str, Any]:
    """What `net.compile` takes beside the optimizer: losses, their weights, the mIoU.

    Args:
        net: a model whose output is a dict of heads, "logits" the main one.
        loss: of the heads of class logits; None is the unweighted cross entropy.
        loss_weights: {head: factor in the total loss}; None weighs all heads alike.
        direct_weights: [C] factors of the logits in the mIoU (`ConfusionMatrix`).

    Returns:
        {"loss", "loss_weights", "metrics"}. The mIoU counts at the size of the logits,
        the label resized by nearest, which is cheap.

    Raises:
        UsageError: as `for_heads`.
    """
    head_losses = for_heads(net, CrossEntropy() if loss is None else loss)
    outputs: Any = net.output
    confusion = ConfusionMatrix(
        outputs["logits"].shape[-1], resize="labels", direct_weights=direct_weights
    )
    weights = dict.fromkeys(outputs, 1.0) if loss_weights is None else loss_weights
    return {
        "loss": head_losses,
        "loss_weights": dict(weights),
        "metrics": {"logits": confusion},
    }


def penalise_kernels(net: keras.Model, l1: float = 0.0, l2: float = 0.0) -> None:
    """Add l1 mean |w| + l2 mean w^2 over all kernels to the loss of a net.

    CLOTH's "L1 and L2 regularisation" read as a penalty on the weights; the means are
    over all kernel weights together. Works through Keras' regularisers, in place;
    they replace those the kernels had.
    """
    kernels = [v for v in net.trainable_variables if v.name.endswith("kernel")]
    size = sum(int(np.prod(kernel.shape)) for kernel in kernels)
    regularizer = keras.regularizers.L1L2(
        _not_negative("l1", l1) / size, _not_negative("l2", l2) / size
    )
    for kernel in kernels:
        kernel.regularizer = regularizer


def _log_loss(label, logits):
    """-log softmax(logits)[label]: [B, h, w], [B, h, w, C] -> [B, h, w].

    Product and sum with the one-hot are faster than gathering, whose gradient is a
    scatter, and than Keras' sparse cross entropy, which gathers too under TensorFlow's
    op determinism.
    """
    logits = logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
    truth = ops.one_hot(label, logits.shape[-1], dtype="float32")
    log_sum = ops.log(ops.sum(ops.exp(logits), axis=-1))
    return log_sum - ops.sum(logits * truth, axis=-1)


def _divide(total, count):
    """total / count, and 0 with a gradient of 0 where there is nothing to count."""
    return total / ops.where(ops.equal(count, 0.0), 1.0, count)


def _checked_weights(weights) -> list[float]:
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all() or (array < 0).any():
        raise UsageError(
            f"The class weights are {array.tolist()}; there must be one finite number "
            "from 0 for each class."
        )
    return array.tolist()


def _not_negative(what: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise UsageError(f"{what} is {value}; it must be a finite number from 0.")
    return float(value)
