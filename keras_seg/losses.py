"""Losses of dense labels: cross entropy, Dice, Lovasz and others, joint heatmaps.

Every loss is called as ``loss(y_true, y_pred)`` and returns one float32 scalar:

* y_true: class ids [B, H, W] of any dtype; `ignore_id` (255) pixels do not count.
* y_pred: raw logits [B, h, w, C] of any float dtype, computed on in float32.

Where the sizes differ the label is resized to the logits by nearest. A batch without
a single valid pixel has the loss 0 and a gradient of 0. An id that is neither one of
the C classes nor `ignore_id` makes the loss NaN, so that it cannot go unnoticed.

    net.compile("adam", **losses.compile_arguments(net))
"""

import math
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

    With `smoothing` e, w_t l becomes (1 - e) w_t l + e / C sum over c of w_c l_c, l_c
    = -log softmax(x)[c] (Szegedy et al. 2016; the weights as in PyTorch).

    Args:
        weights: [C] finite, not negative; None weighs all classes alike.
        strategy: "outer" or "direct".
        normalise: divide by the number of valid "pixels" (BODY), or by the sum of
            their "weights" (PyTorch's cross entropy, VOC07). With "direct" every
            pixel weighs 1 and the two are the same.
        ignore_id: int. The id of pixels that do not count.
        name: str. Keras' name of the loss.
        smoothing: 0..1. Share of the truth that is spread over all classes.

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
        smoothing: float = 0.0,
    ):
        super().__init__(ignore_id, name)
        self.smoothing = _share("smoothing", smoothing)
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
        return cls(
            weights,
            settings.strategy,
            settings.normalise,
            smoothing=settings.smoothing,
        )

    @property
    def num_classes(self):
        return None if self.weights is None else len(self.weights)

    def of_pixels(self, label, valid, logits):
        pixel_weight, weights = valid, None
        if self.weights is not None:
            weights = ops.convert_to_tensor(self.weights, "float32")
            if self.strategy == "direct":
                logits = logits * weights
            else:
                pixel_weight = valid * ops.take(weights, label)
        total = ops.sum(pixel_weight * _log_loss(label, logits))
        if self.smoothing:
            spread = -ops.log_softmax(logits, axis=-1)  # [B, h, w, C]
            if weights is not None and self.strategy == "outer":
                spread = spread * weights
            total = (1 - self.smoothing) * total + self.smoothing * ops.sum(
                valid * ops.mean(spread, axis=-1)
            )
        return _divide(
            total, ops.sum(valid if self.normalise == "pixels" else pixel_weight)
        )

    def get_config(self):
        return {
            **super().get_config(),
            "weights": self.weights,
            "strategy": self.strategy,
            "normalise": self.normalise,
            "smoothing": self.smoothing,
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
class Tversky(PixelLoss):
    """Tversky loss, per class over the whole batch (Salehi et al. 2017).

    1 - mean over c of (TP_c + eps) / (TP_c + a FP_c + b FN_c + eps), p = softmax(x),
    y one-hot, TP_c = sum p_c y_c, FP_c = sum p_c (1 - y_c), FN_c = sum (1 - p_c) y_c,
    sums over the valid pixels of the batch, eps = 1e-6. A class without a valid pixel
    in the batch is left out. a = b = 1/2 is the Dice loss; a = b = 1 the Jaccard.

    Args:
        false_positives: a >= 0.
        false_negatives: b >= 0; above a, it favours recall.
        ignore_id: int. The id of pixels that do not count.
        name: str. Keras' name of the loss.
    """

    def __init__(
        self,
        false_positives: float = 0.3,
        false_negatives: float = 0.7,
        ignore_id: int = IGNORE_ID,
        name: str = "tversky",
    ):
        super().__init__(ignore_id, name)
        self.false_positives = _not_negative("false_positives", false_positives)
        self.false_negatives = _not_negative("false_negatives", false_negatives)

    @classmethod
    def from_settings(cls, settings, weights):
        return cls(settings.false_positives, settings.false_negatives)

    def of_pixels(self, label, valid, logits):
        epsilon = 1e-6
        probability = ops.softmax(logits, axis=-1) * valid[..., None]
        truth = ops.one_hot(label, logits.shape[-1], dtype="float32")
        hits = ops.sum(probability * truth, axis=(0, 1, 2))  # [C]
        actual = ops.sum(truth * valid[..., None], axis=(0, 1, 2))
        false_alarms = ops.sum(probability, axis=(0, 1, 2)) - hits
        missed = actual - hits
        wrong = self.false_positives * false_alarms + self.false_negatives * missed
        index = (hits + epsilon) / (hits + wrong + epsilon)
        # Not "> 0", which would drop the NaN of an unknown id.
        present = ops.cast(ops.not_equal(actual, 0.0), "float32")
        return _divide(ops.sum(present * (1 - index)), ops.sum(present))

    def get_config(self):
        return {
            **super().get_config(),
            "false_positives": self.false_positives,
            "false_negatives": self.false_negatives,
        }


@keras.saving.register_keras_serializable("keras_seg")
class Lovasz(PixelLoss):
    """Lovasz-softmax: a convex surrogate of the mIoU (Berman et al. 2018).

    Mean over the classes c that are present in the batch of the Lovasz extension of
    the Jaccard loss at the errors m_i = |y_ic - p_ic| of the valid pixels i:
    sum over k of m_(k) (J_k - J_(k-1)), the errors in descending order, J_k = 1 -
    (G - F_k) / (G + k - F_k), F_k the pixels of c among the first k and G of all. The
    batch is one set of pixels, as in the authors' code (per_image=False).

    Args:
        ignore_id: int. The id of pixels that do not count.
        name: str. Keras' name of the loss.
    """

    def __init__(self, ignore_id: int = IGNORE_ID, name: str = "lovasz"):
        super().__init__(ignore_id, name)

    def of_pixels(self, label, valid, logits):
        classes = logits.shape[-1]
        probability = ops.reshape(ops.softmax(logits, axis=-1), (-1, classes))
        truth = ops.one_hot(ops.reshape(label, (-1,)), classes, dtype="float32")
        valid = ops.reshape(valid, (-1, 1))
        truth = truth * valid
        # [C, N]. An ignored pixel has the error 0: last in the order, it adds nothing.
        errors = ops.transpose(ops.abs(truth - probability * valid))
        truth = ops.transpose(truth)
        weights = ops.stop_gradient(_jaccard_steps(errors, truth))
        of_class = ops.sum(errors * weights, axis=1)
        present = ops.cast(ops.not_equal(ops.sum(truth, axis=1), 0.0), "float32")
        return _divide(ops.sum(present * of_class), ops.sum(present))


@keras.saving.register_keras_serializable("keras_seg")
class HardPixels(PixelLoss):
    """Cross entropy of the hard pixels of a batch (OHEM, Shrivastava et al. 2016).

    The mean of l = -log p_t over the valid pixels with p_t < `below`, p = softmax(x),
    t the true class; or over the `share` of the valid pixels with the lowest p_t, if
    those are more. As in the code of HRNet and BiSeNet, but a share of the pixels, not
    their number.

    Args:
        below: 0..1. Pixels whose true class is less probable are hard.
        share: 0..1. Of the valid pixels, rounded up: how many count at least.
        ignore_id: int. The id of pixels that do not count.
        name: str. Keras' name of the loss.
    """

    def __init__(
        self,
        below: float = 0.7,
        share: float = 1 / 16,
        ignore_id: int = IGNORE_ID,
        name: str = "ohem",
    ):
        super().__init__(ignore_id, name)
        self.below, self.share = _share("below", below), _share("share", share)

    @classmethod
    def from_settings(cls, settings, weights):
        return cls(settings.hard_below, settings.hard_share)

    def of_pixels(self, label, valid, logits):
        loss = _log_loss(label, logits)
        is_valid = ops.not_equal(valid, 0.0)  # with the NaN of an unknown id
        # Ignored pixels are below all others; the order only chooses.
        ranked = ops.where(is_valid, ops.stop_gradient(loss), -1.0)
        ranked = ops.sort(ops.reshape(ranked, (-1,)))
        count = ops.sum(ops.cast(is_valid, "float32"))
        least = ops.cast(ops.ceil(self.share * count), "int32")
        # The loss of the last pixel among the hardest `least`
        place = ops.maximum(ops.shape(ranked)[0] - ops.maximum(least, 1), 0)
        hardest = ops.take(ranked, place)
        bound = -math.log(self.below) if self.below else math.inf
        is_hard = ops.logical_or(
            loss > bound, ops.logical_and(loss >= hardest, least > 0)
        )
        chosen = valid * ops.cast(is_hard, "float32")
        return _divide(ops.sum(chosen * loss), ops.sum(chosen))

    def get_config(self):
        return {**super().get_config(), "below": self.below, "share": self.share}


@keras.saving.register_keras_serializable("keras_seg")
class Sum(PixelLoss):
    """A loss plus `factor` times another one.

    Args:
        first, second: losses of this module with the same ignored id.
        factor: float >= 0. Of the second.
        name: str. Keras' name of the loss.
    """

    def __init__(
        self,
        first: PixelLoss,
        second: PixelLoss,
        factor: float = 1.0,
        name: str = "sum",
    ):
        first, second = (_label_loss(loss) for loss in (first, second))
        if first.ignore_id != second.ignore_id:
            raise UsageError(
                f"{first.name} ignores the id {first.ignore_id}, but {second.name} the "
                f"id {second.ignore_id}."
            )
        super().__init__(first.ignore_id, name)
        self.first, self.second = first, second
        self.factor = _not_negative("factor", factor)

    @property
    def num_classes(self):
        counts = (self.first.num_classes, self.second.num_classes)
        return next((count for count in counts if count is not None), None)

    def of_pixels(self, label, valid, logits):
        first = self.first.of_pixels(label, valid, logits)
        return first + self.factor * self.second.of_pixels(label, valid, logits)

    def get_config(self):
        return {
            "first": keras.saving.serialize_keras_object(self.first),
            "second": keras.saving.serialize_keras_object(self.second),
            "factor": self.factor,
            "name": self.name,
        }  # the ignored id is theirs


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
        base = _label_loss(base)
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
        settings: `name` is a key of `keras_seg.config.LOSSES`. Penalties on the
            kernels are the network's (`penalise_kernels`).
        weights: [C] class weights (`class_weights.from_counts`), or None.
    """
    loss = _named(settings.name, settings, weights)
    if settings.plus is not None:
        second = _named(settings.plus, settings, weights)
        loss = Sum(loss, second, settings.plus_weight)
    if (settings.l1 or settings.l2) and settings.penalise == "error":
        loss = WithErrorPenalty(loss, l1=settings.l1, l2=settings.l2)
    return loss


def _named(name: str, settings: LossSettings, weights: np.ndarray | None) -> PixelLoss:
    kind: type[PixelLoss] = globals()[LOSSES[name].class_name]
    return kind.from_settings(settings, weights if LOSSES[name].takes_weights else None)


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


def _jaccard_steps(errors, truth):
    """What each error adds to the Jaccard loss when the errors are taken from the top.

    Args:
        errors, truth: float32 [C, N]; truth is 1 at the pixels of the class, else 0.

    Returns:
        float32 [C, N], J_k - J_(k-1) of `Lovasz` at the place of the k-th error.
    """
    order = ops.argsort(-errors, axis=1)
    ranked = ops.take_along_axis(truth, order, axis=1)
    total = ops.sum(truth, axis=1, keepdims=True)
    found = ops.cumsum(ranked, axis=1)
    others = ops.cumsum(1 - ranked, axis=1)
    jaccard = 1 - (total - found) / (total + others)
    steps = jaccard - ops.pad(jaccard[:, :-1], ((0, 0), (1, 0)))
    return ops.take_along_axis(steps, ops.argsort(order, axis=1), axis=1)


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


def _label_loss(loss) -> PixelLoss:
    """The loss, also from what it was serialised to; UsageError for anything else."""
    if isinstance(loss, dict):
        loss = keras.saving.deserialize_keras_object(loss)
    if not isinstance(loss, PixelLoss):
        raise UsageError(f"{loss!r} is no loss of labels (keras_seg.losses).")
    return loss


def _share(what: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise UsageError(f"{what} is {value}; it must be from 0 to 1.")
    return float(value)


def _not_negative(what: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise UsageError(f"{what} is {value}; it must be a finite number from 0.")
    return float(value)
