"""The studies train: every kind of network and loss here, every stage when asked.

The arms are those of scale smoke, here at the smallest size and with narrow layers. A
graph of the training step of each network takes seconds: `make test-all` makes them.
"""

import csv
import gc
import importlib
import json
from functools import partialmethod

import keras
import miniature_net
import miniatures
import numpy as np
import pytest
from test_nets import ROWS

from keras_seg import nets
from keras_seg import study as studies
from keras_seg.ablation.protocol import DataFacts
from keras_seg.ablation.runner import planned_arms
from keras_seg.runs import evaluate
from keras_seg.runs import folder as run_folder
from keras_seg.runs import train as training

STUDIES = {name: studies.load(name) for name in studies.names()}
FACTS = DataFacts(image_size=(40, 48), train_images=6)
STAGES = [
    (name, net, plan, stage)
    for name, study in STUDIES.items()
    for net, plan in study.plans.items()
    for stage in plan.stages
]


def kinds():
    """{what is new about it: configuration}: each network and head, each loss."""
    found: dict = {}
    for *_, plan, stage in STAGES:
        for arm in planned_arms(plan, stage, plan.base("smoke", FACTS)):
            net, loss = arm.config.net, arm.config.loss.name
            joints = "joints" if net.knobs.get("joints") else "no joints"
            kind = f"{net.name}, {net.knobs.get('targets', 'full')}, {joints}"
            if not arm.pretrained:
                found.setdefault(kind, arm.config)
                if loss not in {config.loss.name for config in found.values()}:
                    found[loss] = arm.config
    return found


KINDS = kinds()
# Each unit of a deep network is traced for seconds; one of a kind trains alike.
FEWER_UNITS = {
    "icnet": {
        "CONV2": (("conv2_1",), 8, 16, 1),
        "CONV3_LOW": (("conv3_2",), 8, 16, 1),
        "CONV4": (("conv4_1",), 8, 16, 2),
        "CONV5": (("conv5_1",), 8, 16, 4),
    },
    "fcn_resnet34": {"STAGES": ((1, 8), (1, 8), (1, 16), (1, 16))},
    "segnet": {
        "ENCODER": ((8,), (8,), (8,), (16,), (16,)),
        "DECODER": ((16,), (8,), (8,), (8,), (8,)),
    },
}
FEWER_KNOBS = {"hourglass": {"stacks": 1, "depth": 1, "stem": 4}}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    return miniatures.bodies(tmp_path_factory.mktemp("data") / "bodies")


@pytest.fixture(autouse=True)
def forgotten():
    """Networks hold each other in cycles: without this they fill the memory."""
    yield
    gc.collect()


def make_small(name: str, monkeypatch) -> None:
    """Give the network few units and narrow layers, where no knob does."""
    module = importlib.import_module(f"keras_seg.nets.{nets.get(name).module}")
    widths = ROWS[name].small_widths | FEWER_UNITS.get(name, {})
    for constant, value in widths.items():
        monkeypatch.setattr(module, constant, value)


def shallow_encoder(include_top, weights, input_shape) -> keras.Model:
    """In place of Keras' ResNet50: to 1/32 of the size, with batch norm."""
    assert (include_top, weights) == (False, None)
    image = keras.Input(input_shape)
    x = keras.layers.Conv2D(16, 3, strides=32, padding="same")(image)
    return keras.Model(image, keras.layers.BatchNormalization()(x))


@pytest.fixture
def eagerly(monkeypatch):
    """Training steps run op by op."""
    compiled = partialmethod(keras.Model.compile, run_eagerly=True)
    monkeypatch.setattr(keras.Model, "compile", compiled)


def train_two_steps(config, bodies, run) -> None:
    config = config.changed(validation={"every": 1}, steps=2)
    with miniatures.plain_runs():
        result = training.train(config, bodies, run)
    assert result["steps"] == 2
    # Every pixel of the four validation images is scored: none is void.
    height, width = config.data.size
    assert np.array(result["confusion"]).sum() == 4 * height * width
    losses = [row["loss"] for row in run_folder.read_history(run)]
    assert len(losses) == 2
    assert losses[0] != losses[1]


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("kind", sorted(kind for kind in KINDS if "," in kind))
def test_two_steps_of_every_network(kind, bodies, tmp_path, monkeypatch):
    config, row = KINDS[kind], ROWS[KINDS[kind].net.name]
    make_small(config.net.name, monkeypatch)
    monkeypatch.setattr(keras.applications, "ResNet50", shallow_encoder)
    knobs = row.small_knobs | config.net.knobs | FEWER_KNOBS.get(config.net.name, {})
    if knobs.get("joints"):  # learnt by a stack before the last
        knobs["stacks"] = 2
    config = config.changed(net=knobs, data={"size": row.small})
    train_two_steps(config, bodies, tmp_path / "run")


@pytest.mark.parametrize("kind", sorted(kind for kind in KINDS if "," not in kind))
def test_two_steps_of_every_loss(kind, bodies, tmp_path):
    with miniature_net.known():
        small = KINDS[kind].changed(net=miniature_net.NAME, data={"size": (24, 40)})
        assert small.loss == KINDS[kind].loss
        train_two_steps(small, bodies, tmp_path / "run")


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """One folder for all stages, as a user has it: what several have is run once."""
    return tmp_path_factory.mktemp("studied")


@pytest.fixture
def small_networks(monkeypatch):
    """Networks that are traced in seconds; a stage at scale smoke uses this process.

    Those of the pretrained arms have to be as their files of weights.
    """
    for name in set(ROWS) - {"unet_lite0"}:
        make_small(name, monkeypatch)
    monkeypatch.setattr(evaluate, "TIMED_IMAGES", 1)


def run(bodies, out, *words):
    words += ("--scale", "smoke", "--data", str(bodies), "--out", str(out))
    assert studies.main(list(words)) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "net", "stage"),
    [(study, net, stage.name) for study, net, _, stage in STAGES],
)
def test_every_stage_at_scale_smoke(study, net, stage, bodies, studied, small_networks):
    run(bodies, studied, "--study", study, "--net", net, "--stage", stage)
    folder = studied / study / net
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "tables" / f"{stage}.csv").is_file()


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """SURREAL's own 14 parts, under a name whose groups are those of 24."""
    folder = tmp_path_factory.mktemp("merged") / "bodies"
    miniatures.bodies(folder, merge="surreal14")
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"dataset": "surreal"}))
    miniatures.resign(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "stage"),
    [(net, stage.name) for study, net, _, stage in STAGES if study == "body_parts"],
)
def test_every_stage_of_bodies_with_merged_parts(
    net, stage, merged, studied, small_networks
):
    out = studied / "merged"
    run(merged, out, "--study", "body_parts", "--net", net, "--stage", stage)
    with open(out / "body_parts" / net / "tables" / f"{stage}.csv") as file:
        states = {row["arm"]: row["state"] for row in csv.DictReader(file)}
    assert set(states.values()) - {""} == {"done"}


@pytest.mark.slow
def test_the_comparison_at_scale_smoke(bodies, studied, small_networks):
    run(bodies, studied, "--stage", "compare")
    study = studied / "body_parts"
    with open(study / "compare" / "tables" / "compare.csv", newline="") as file:
        states = {row["arm"]: row["state"] for row in csv.DictReader(file)}
    assert states == {"icnet": "done", "segnet_basic": "done", "hourglass": "done"}
    exports = study.glob("*/final/winner/seed0/export/saved_model/saved_model.pb")
    assert len(list(exports)) == 3
