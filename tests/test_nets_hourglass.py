"""The hourglass: its resolutions, coarse-to-fine targets, joints, memory."""

import numpy as np
import outlines
import pytest
import tensorflow as tf

from keras_seg import nets
from keras_seg.data.surreal.parts import SURREAL14
from keras_seg.nets import hourglass


def outline(size, num_classes, **knobs):
    return outlines.outline("hourglass", size, num_classes, **knobs)


def test_original_form_predicts_at_a_quarter_of_the_resolution():
    model = outline((256, 128), 16, stem_stride=2, stem_pool=True, stacks=1)
    assert model.output["logits"].shape == (None, 64, 32, 16)
    assert nets.inference_model(model).output["logits"].shape == (None, 256, 128, 16)


@pytest.mark.parametrize(
    ("knobs", "stride"),
    [({}, 16), ({"depth": 6}, 64), ({"stem_stride": 2, "stem_pool": True}, 64)],
)
def test_size_is_a_multiple_of_what_is_halved(knobs, stride):
    size = nets.padded_size("hourglass", (1, stride + 1), **knobs)
    assert size == (stride, 2 * stride)


# Coarse-to-fine targets (BODY Fig. 14).


def test_each_level_is_a_function_of_every_finer_one():
    levels = sorted(hourglass.LEVELS)
    for coarse, fine in zip(levels, levels[1:]):
        pairs = set(zip(hourglass.LEVELS[fine], hourglass.LEVELS[coarse]))
        assert len(pairs) == fine
        assert {pair[1] for pair in pairs} == set(range(coarse))


def test_levels_of_some_parts():
    # SURREAL ids: 2 right thigh, 11 right toes, 13 neck, 16 head, 23 right fingers.
    parts = (0, 2, 11, 13, 16, 23)
    levels = {k: [of[part] for part in parts] for k, of in hourglass.LEVELS.items()}
    assert levels == {
        2: [0, 1, 1, 1, 1, 1],
        5: [0, 4, 4, 2, 1, 3],
        7: [0, 5, 6, 2, 1, 4],
        10: [0, 7, 9, 3, 1, 6],
        13: [0, 3, 12, 5, 1, 11],
        25: list(parts),
    }


@pytest.mark.parametrize(
    ("stacks", "chain"),
    [
        (1, [25]),
        (4, [2, 5, 7, 25]),
        (6, [2, 5, 7, 10, 13, 25]),
        (8, [2, 5, 7, 10, 13, 25, 25, 25]),
    ],
)
def test_heads_of_the_hierarchy_follow_the_chain(stacks, chain):
    knobs = {"stacks": stacks, "targets": "hierarchy", "depth": 1, "features": 8}
    names = [f"stack{i}_logits" for i in range(stacks - 1)] + ["logits"]
    outputs = outline((32, 48), 25, **knobs).output
    heads = nets.heads("hourglass", 25, **knobs)
    assert list(heads) == names
    assert set(outputs) == set(names)
    for name, classes in zip(names, chain):
        assert outputs[name].shape == (None, 32, 48, classes)
        lookup = heads[name].lookup
        assert lookup == (None if classes == 25 else hourglass.LEVELS[classes])


def test_levels_of_the_merged_parts_are_those_of_their_members():
    """The same bodies, arms and legs, whether 24 parts are labelled or 14."""
    for level in (2, 5, 7):
        pairs = zip(SURREAL14, hourglass.LEVELS[level])
        merged = hourglass.LEVELS_14[level]
        assert all(merged[part] == wanted for part, wanted in pairs)


@pytest.mark.parametrize(
    ("stacks", "chain"), [(1, [15]), (4, [2, 5, 7, 15]), (6, [2, 5, 7, 15, 15, 15])]
)
def test_heads_of_the_hierarchy_of_merged_parts(stacks, chain):
    knobs = {"stacks": stacks, "targets": "hierarchy", "depth": 1, "features": 8}
    outputs = outline((32, 48), 15, **knobs).output
    heads = nets.heads("hourglass", 15, **knobs)
    for (name, head), classes in zip(heads.items(), chain, strict=True):
        assert outputs[name].shape == (None, 32, 48, classes)
        wanted = None if classes == 15 else hourglass.LEVELS_14[classes]
        assert head.lookup == wanted


def test_joint_branch_predicts_heatmaps_and_is_dropped_for_prediction():
    knobs = {"joints": 24, "aux_modules": 2, "stacks": 3, "depth": 1, "features": 8}
    model = outline((16, 24), 5, **knobs)
    heads = nets.heads("hourglass", 5, **knobs)
    for name in ("joints0_heatmaps", "joints1_heatmaps"):
        assert model.output[name].shape == (None, 16, 24, 24)
        assert heads[name].target == "heatmaps"
    inference = nets.inference_model(model)
    assert not [w.path for w in inference.weights if w.path.startswith("joints")]


def test_joint_branch_leaves_after_the_stack_asked_for():
    model = outline((16, 24), 5, joints=24, aux_at=1, depth=1, features=8)
    entering = model.get_layer("joints0_level1_up_add").input
    merge = model.get_layer("stack1_merge").output
    assert any(tensor is merge for tensor in entering)


def name(weight):
    """The same for the plain units and those that are recomputed."""
    return weight.path.replace("/", "_")


def test_rematerialisation_changes_no_result():
    knobs = {"stacks": 2, "depth": 2, "features": 16, "stem": 8}
    plain = nets.build("hourglass", (16, 24, 3), 4, **knobs)
    remat = nets.build("hourglass", (16, 24, 3), 4, **knobs, remat=True)
    rng = np.random.default_rng(0)
    values = {name(w): w + 0.1 * rng.random(w.shape) for w in plain.weights}
    for weight in plain.weights + remat.weights:
        weight.assign(values[name(weight)])
    image = rng.normal(size=(2, 16, 24, 3)).astype("float32")
    np.testing.assert_allclose(
        remat(image)["logits"], plain(image)["logits"], rtol=1e-5, atol=1e-5
    )

    def gradients_and_statistics(model):
        with tf.GradientTape() as tape:
            outputs = model(image, training=True)
            loss = sum(tf.reduce_mean(tensor**2) for tensor in outputs.values())
        weights = model.trainable_weights
        gradients = tape.gradient(loss, [w.value for w in weights])
        statistics = {name(w): w.value for w in model.non_trainable_weights}
        return dict(zip(map(name, weights), gradients)) | statistics

    expected, found = gradients_and_statistics(plain), gradients_and_statistics(remat)
    assert set(found) == set(expected)
    for path in expected:
        scale = np.abs(expected[path]).max()
        np.testing.assert_allclose(
            found[path], expected[path], rtol=1e-4, atol=1e-5 * scale + 1e-6
        )
