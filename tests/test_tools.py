"""The commands train and evaluate, and what all of `keras-seg` shares."""

import json
import re
import subprocess
import sys

import evaluate
import miniature_net
import numpy as np
import pytest
import train

from keras_seg import command_line, metrics, storage
from keras_seg.__main__ import VERBS, call
from keras_seg.config import FORMAT_1, NetSettings, from_dict, settings, to_dict
from keras_seg.data.augment import AUGMENTATIONS
from keras_seg.data.surreal import LABELS
from keras_seg.errors import UsageError
from keras_seg.nets import NETS
from keras_seg.runs import face, recipes
from keras_seg.runs.commands import check_body_parts, print_groups, score_line


def run(main, *words) -> int:
    return command_line.run(main, [str(word) for word in words])


@pytest.fixture
def miniature():
    with miniature_net.known():
        yield miniature_net.NAME


def test_train_and_evaluate(miniature, shapes, tmp_path, capsys):
    folder = tmp_path / "run"
    words = ["--net", miniature, "--data", shapes, "--size", 24, 40, "--out", folder]
    words += ["--knob", "dropout=0.1", "--set", "net.features=4"]
    words += ["--batch", 4, "--epochs", 1, "--threads", 2]
    words += ["--val-every", 2, "--augment", "mirror,rotate", "--swap-lr"]
    assert run(train.main, *words) == 0
    config = json.loads((folder / "config.json").read_text())["config"]
    assert config["steps"] == 3  # 10 images, 4 a step
    assert config["augment"]["mirror"] == 0.5
    assert config["augment"]["swap_lr"] is True
    assert config["net"]["features"] == 4
    assert config["net"]["dropout"] == 0.1
    capsys.readouterr()
    assert run(train.main, *words, "--lr", 1) == 2
    assert "optimizer.lr" in capsys.readouterr().err
    for extra in ([], ["--full-size"]):
        arguments = (folder, "--split", "test", "--threads", 2, *extra)
        assert run(evaluate.main, *arguments) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("test: mIoU 0.")
        assert last.endswith(", 3 images")
    # shapes() has three test images: all are kept
    with np.load(folder / "evaluation" / "test-samples.npz") as kept:
        assert kept["ids"].tolist() == ["test0", "test1", "test2"]
        assert kept["prediction"].shape == kept["label"].shape == (3, 24, 40)
    assert (folder / "evaluation" / "test-samples.png").is_file()
    for name in ("test.json", "test-full-size.json"):
        written = json.loads((folder / "evaluation" / name).read_text())
        assert sum(map(sum, written["confusion"])) > 0
    assert run(evaluate.main, tmp_path / "nowhere") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("classes", "over"),
    [
        (None, " over 2 of 3 classes"),
        ((0, 1), ""),
        # Ids that are not scored count in no mean, whether they occur or not.
        ((1, 2), " over 1 of 2 classes"),
    ],
)
def test_a_score_says_over_how_many_classes_its_mean_is(classes, over):
    found = metrics.scores(np.array([[5, 1, 0], [2, 2, 0], [0, 0, 0]]), classes)
    miou = found["summary"]["miou"]
    line = score_line(found | {"split": "val", "images": 4})
    assert line.startswith(f"val: mIoU {miou:.4f}{over}, accuracy ")
    assert line.endswith(", 4 images")


@pytest.fixture
def trained(monkeypatch):
    """Calls the command, but trains nothing; gives (the Config, other arguments)."""
    calls = []
    monkeypatch.setattr(face, "train", lambda **given: calls.append(given))

    def trained(*words):
        assert run(train.main, "--data", "D", "--out", "O", *words) == 0
        given = calls.pop()
        return from_dict({"steps": 1} | given.pop("config")), given

    return trained


FILE = {
    "net": {"name": "hourglass", "stacks": 2, "depth": 3},
    "data": {"size": [32, 64], "batch": 4, "pad": True},
    "augment": {"mirror": 0.3, "rotate": 5.0, "swap_lr": True},
    "optimizer": {"name": "adam", "lr": 0.1},
    "loss": {"weights": "w1"},
    "steps": 7,
}


@pytest.fixture(params=["parts", "format 1", "run"])
def file(request, tmp_path):
    """FILE as --config takes it: by parts, without parts, a run's config.json."""
    values = FILE
    if request.param == "format 1":
        values = {
            "net": "hourglass",
            "knobs": {"stacks": 2, "depth": 3},
            **{"size": [32, 64], "batch": 4, "pad": True, "augment": FILE["augment"]},
            **{"optimizer": "adam", "lr": 0.1, "class_weights": "w1", "steps": 7},
        }
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps({"config": values} if request.param == "run" else values)
    )
    return path


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("", {}),
        ("--set augment.swap_lr=false", {"augment": {"swap_lr": False}}),
        ("--set augment.mirror=0.5", {"augment": {"mirror": 0.5}}),
        ("--augment mirror,noise", {"augment": {"mirror": 0.5, "noise": 10.0}}),
        ("--set data.pad=false", {"data": {"pad": False}}),
        ("--knob stacks=1", {"net": {"stacks": 1}}),
        ("--set net.stacks=1 --net hourglass", {"net": {"stacks": 1}}),
        ("--lr 0.003 --steps 9", {"optimizer": {"lr": 0.003}, "steps": 9}),
        ("--lr 1 --set optimizer.lr=2", {"optimizer": {"lr": 2.0}}),
        ("--class-weights w2 --loss ce", {"loss": {"name": "ce", "weights": "w2"}}),
        ("--size 64 96 --batch 2", {"data": {"size": (64, 96), "batch": 2}}),
        ("--net icnet --set seed=3", {"net": "icnet", "seed": 3}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_set_overrides_the_files_value_and_nothing_else(
    words, changes, file, trained
):
    found, _ = trained("--config", file, *words.split())
    assert found == from_dict(FILE).changed(**changes)


RECIPE = """
title = "Mine"
["optimizer.lr"]
value = 0.5
reason = "It is a half."
source = "me"
["augment.scale"]
value = [0.8, 1.2]
reason = "As above."
source = "me"
["loss.weights"]
value = "w2"
reason = "As above."
source = "me"
"""


def test_a_recipe_is_overridden_by_what_is_set_and_overrides_the_file(
    trained, tmp_path
):
    (tmp_path / "mine.toml").write_text(RECIPE)
    (tmp_path / "file.json").write_text(json.dumps(FILE))
    words = ["--config", tmp_path / "file.json", "--recipe", tmp_path / "mine.toml"]
    found, given = trained(*words, "--lr", "0.25", "--set", "augment.mirror=0.1")
    assert found == from_dict(FILE).changed(
        optimizer={"lr": 0.25},
        augment={"mirror": 0.1, "scale": (0.8, 1.2)},
        loss={"weights": "w2"},
    )
    assert "recipe" not in given  # a run records plain settings


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_plain_settings_with_a_reason_and_a_source_each(name, trained):
    found, _ = trained("--net", "icnet", "--size", 64, 64, "--recipe", name)
    plain, _ = trained("--net", "icnet", "--size", 64, 64)
    assert found != plain
    values = to_dict(found)
    for path, line in recipes.read(name).items():
        part, _, setting = path.partition(".")
        assert values[part][setting] == line["value"]
        assert min(len(line["reason"]), len(line["source"])) > 7, path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no recipe '.*recipe.toml'. Recipes: modern; or name a TOML file"),
        ("a = [", "recipe.toml cannot be read"),
        (RECIPE.replace('reason = "It is a half."', ""), "optimizer.lr of the recipe"),
        (RECIPE.replace('"me"', '" "', 1), "optimizer.lr of the recipe"),
        (RECIPE + 'note = "more"', "loss.weights of the recipe"),
        ("optimizer = 3", "optimizer of the recipe .* a value, a reason"),
        (RECIPE.replace("optimizer.lr", "optimizer.rate"), "no setting 'optimizer.rat"),
    ],
)
def test_what_is_no_recipe_is_refused(text, words, tmp_path):
    file = tmp_path / "recipe.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=words):
        recipes.read(file)


def test_an_edited_config_of_a_run_is_taken_with_a_warning(trained, tmp_path, capsys):
    path = tmp_path / "config.json"
    storage.write_json(path, {"format": 2, "config": FILE})
    assert trained("--config", path)[0] == from_dict(FILE)
    assert capsys.readouterr().err == ""
    path.write_text(path.read_text().replace('"steps": 7', '"steps": 8'))
    assert trained("--config", path)[0].steps == 8
    assert "config.json was changed since a run wrote it" in capsys.readouterr().err


def test_options_of_the_network_may_be_named_without_or_before_it(trained, tmp_path):
    file = tmp_path / "options.json"
    file.write_text('{"net": {"filter_scale": 2, "preprocess": "unit"}}')
    words = ["--size", 32, 64, "--config", file, "--set", "net.depth=1"]
    for name in (["--net", "unet"], ["--set", "net.name=unet"]):
        found, _ = trained(*words, *name)
        assert found.net == NetSettings(
            name="unet", filter_scale=2, preprocess="unit", knobs={"depth": 1}
        )


def test_every_setting_has_a_short_form_that_sets_it(trained):
    """What a field of format 1 was called is still an option."""
    values = {"schedule": "step", "optimizer": "adam", "precision": "mixed_bfloat16"}
    values |= {"loss": "ce", "class_weights": "w2", "strategy": "direct"}
    values |= {"normalise": "weights", "weight_occurrences": "images"}
    values |= {"decay_on": "all", "bn_mode": "full", "joint_targets": "centroid"}
    values |= {"preprocess": "unit", "lr": 0.5, "bn_start": 200, "momentum": 0.5}
    by_path = {path: hint for path, hint, *_ in settings()}
    old = {name: path for name, path in FORMAT_1.items() if path in by_path}
    words = ["--net", "icnet", "--size", "32", "64"]
    expected = {"steps": "7", "seed": "7"}
    for name, path in old.items():
        flag = f"--{name.replace('_', '-')}"
        if by_path[path] is bool:
            words.append(flag)
        elif name not in ("size", "init_weights_sha256", "val_every"):
            expected[name] = str(
                values.get(name, "0.25" if by_path[path] is float else 7)
            )
    for name, value in expected.items():
        words += [f"--{name.replace('_', '-')}", value]
    config, _ = trained(*words)
    for name, path in old.items():
        part, _, field = path.partition(".")
        found = getattr(getattr(config, part), field)
        if by_path[path] is bool:
            assert found is True, name
        elif name in expected:
            assert str(found) == expected[name], name


def test_what_is_no_setting_goes_to_the_run(trained):
    words = ["--net", "icnet", "--size", 32, 64, "--threads", 3, "--restart"]
    _, given = trained(*words, "--epochs", 2, "--checkpoint-every", 5)
    assert (given["threads"], given["restart"], given["epochs"]) == (3, True, 2)
    assert (given["checkpoint_every"], given["allow_inexact"]) == (5, False)
    assert (str(given["data"]), str(given["out"])) == ("D", "O")


def test_augmentations_are_settings_by_name():
    assert train.augment_of([], False) == {}
    assert train.augment_of(["mirror"], True) == {"mirror": 0.5, "swap_lr": True}
    for name in AUGMENTATIONS:
        # Beside the zoom, without which there is no crop to balance
        from_dict({**FILE, "augment": train.augment_of(["scale", name], False)})
    with pytest.raises(UsageError, match="mirorr is unknown.*mirror, scale, rotate"):
        train.augment_of(["mirorr"], False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "net, size and steps must be given: --net NET, --size H W, --steps"),
        ("--net icent --size 32 64 --steps 1", "net.name is 'icent'.*icnet"),
        ("--net icnet --size 32 65 --steps 1", "32 x 65.* 32 x 96"),
        ("--net icnet --size 32 64 --steps 1 --lr fast", "optimizer.lr is 'fast'"),
        ("--net icnet --size 32 64 --steps 1 --set lr=1", "'lr'.*optimizer.lr"),
        ("--net icnet --size 32 64 --steps 1 --loss foo", "loss.name is 'foo'.*focal"),
        ("--net icnet --size 32 64 --steps 1 --set lr", "--set 'lr' gives no value"),
        ("--net icnet --size 32 64 --steps 1 --epochs 1", "--steps and --epochs"),
        ("--net icnet --size 32 64 --steps 1 --knob a=1", "no knob 'a'"),
        ("--net icnet --size 32 64 --steps 1 --knob bins=foo", "icnet.* bins='foo'"),
        ("--net icnet --size 32 64 --steps 1 --knob bins=[0]", "bins is 0; a grid"),
        ("--net hourglass --size 32 64 --steps 1 --knob depth=x", "depth='x'.*knobs"),
        (
            "--net icnet --size 32 64 --steps 1 --set net.cff_dilation=0",
            "icnet cannot be built with cff_dilation=0: .*icnet.py describes",
        ),
        ("--net icnet --size 32 64 --steps 1 --init-weights gone", "gone"),
        ("--config gone.json", "gone.json"),
        ("--config tests/test_tools.py", "tests/test_tools.py is not JSON"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_sentence_and_leaves_nothing(
    words, message, shapes, tmp_path, capsys
):
    out = tmp_path / "run"
    assert run(train.main, "--data", shapes, "--out", out, *words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line
    assert not out.exists()


@pytest.mark.parametrize(
    "words",
    [
        "train --data DIR --out {} --net icnet --size 32 64 --steps 1",
        "predict RUN a.png --out {}",
        "export RUN --out {}",
        "evaluate {}",
    ],
)
def test_an_empty_name_is_no_folder(words, capsys):
    assert run(call, *(word.format("") for word in words.split())) == 2
    assert "the name of the folder is empty" in capsys.readouterr().err


def test_a_run_below_a_file_is_refused_and_the_file_named(shapes, tmp_path, capsys):
    file = tmp_path / "notes.txt"
    file.touch()
    words = ["--data", shapes, "--net", "icnet", "--size", 32, 64, "--steps", 1]
    assert run(train.main, *words, "--out", file / "new" / "run") == 2
    assert capsys.readouterr().err.startswith(f"error: {file} is a file; name a fol")


def test_the_settings_are_listed_with_default_choices_and_meaning(capsys):
    with pytest.raises(SystemExit) as leaving:
        run(train.main, "--settings")
    assert leaving.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split("=")[0].split()[0] for line in lines}
    assert shown >= {path for path, *_ in settings()}
    assert any(line.startswith('optimizer.name="sgd" ') for line in lines)
    (net,) = (line for line in lines if line.startswith("net.name "))
    assert all(name in net for name in NETS)
    (weights,) = (line for line in lines if line.startswith("loss.weights="))
    assert "(none, w1, w2, median, voc07)" in weights


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as leaving:
        run(call, verb, "--help")
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_another_verb_is_named_beside_those_there_are(capsys):
    assert run(call, "trian") == 2
    assert "no command 'trian'. Commands: prepare, verify" in capsys.readouterr().err


def test_the_list_of_verbs_answers_without_numpy():
    script = """
import sys
from keras_seg.__main__ import main
code = main(["--help"])
print(code, sorted({"numpy", "cv2", "keras", "tensorflow"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "0 []"
    for verb in VERBS:
        assert any(line.startswith(f"    keras-seg {verb} ") for line in lines), verb


def test_help_imports_nothing_slow():
    script = f"""
import sys
from keras_seg.__main__ import main
for verb in {list(VERBS)}:
    try:
        main([verb, "--help"])
    except SystemExit as leaving:
        assert leaving.code == 0, verb
slow = {{"matplotlib", "scipy", "keras", "tensorflow", "h5py", "jinja2"}}
print(sorted(slow & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_groups_of_published_multiplicities(capsys):
    """A group's value is the mean of its members' recalls (BODY Table 2)."""
    confusion = np.zeros((25, 25), np.int64)
    recalls = np.zeros(25)
    recalls[[1, 4, 7, 10]] = 0.9, 0.8, 0.5, 0.2  # torso: 60 %
    recalls[[2, 3]] = 0.3, 0.4  # upper legs: 35 %
    for class_id, recall in enumerate(recalls):
        size = 10 * (class_id + 1)  # a merged class would weigh by size
        confusion[class_id, class_id] = round(recall * size)
        confusion[class_id, 16] += size - round(recall * size)
    confusion[13] = 0  # no neck
    print_groups(
        {"confusion": confusion.tolist(), "summary": {"mean_accuracy": 0.1875}}
    )
    lines = dict(
        line.rsplit(" accuracy ", 1) for line in capsys.readouterr().out.splitlines()
    )
    found = {name.strip(): value for name, value in lines.items()}
    assert len(found) == 14
    assert found["Torso"] == "60.00 %"
    assert found["U.Legs"] == "35.00 %"
    assert found["Head"] == "100.00 %"
    assert found["Neck"] == "absent"
    assert found["All Classes"] == "18.75 %"


def test_groups_need_the_classes_they_are_made_of():
    check_body_parts(list(LABELS.names))
    with pytest.raises(UsageError, match="groups13 needs .* 25 classes.* has 2"):
        check_body_parts(["road", "sky"])
