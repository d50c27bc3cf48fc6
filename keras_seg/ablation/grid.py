"""A question in one line: values of some settings as the arms of a stage.

--vary loss.weights=none,w1 --vary augment.mirror=0,0.5        four arms
--vary ... --vary ... --one-at-a-time                          the base and each change
"""

import dataclasses
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_seg.ablation import protocol
from keras_seg.ablation.protocol import Arm, DataFacts, Plan, Stage, Study
from keras_seg.config import (
    READ_BY,
    Config,
    from_dict,
    parse_value,
    plain,
    set_path,
    settings,
)
from keras_seg.data.prepared import Prepared
from keras_seg.errors import UsageError
from keras_seg.runs import train as training

STUDY = "own"  # results are in OUT/own/NAME
STAGE = "question"
PIXELS = 192 * 256  # of an image, where no size is given
STRIDE = 32  # that every network takes
# The study camvid's for networks without a recipe of their own
RECIPE: Mapping[str, Any] = {"name": "adam", "lr": 1e-3}  # of the optimizer
VALIDATIONS = 10  # of a run, where `validation.every` is not given
NOT_VARIED = {
    "seed": "--seeds K runs the seeds 0 to K - 1",
    "extended": "--extend trains a stage on",
    "net.init_weights_sha256": "init_weights=none,FILE compares starts",
    "data.folds": "--folds K is of all arms",
    "data.fold": "--folds K trains each of them",
}
LONGEST_NAME = 60
START = "init_weights"  # varied like a setting: "none", or weights to start from
NO_START = "none"


@dataclass(frozen=True)
class Varied:
    """A setting and the values it takes.

    Attributes:
        path: of the setting; "net" is another network, with its own options,
            `START` is what training starts from.
        values: plain JSON values, at least one.
    """

    path: str
    values: tuple[Any, ...]

    def __post_init__(self):
        path = "net" if self.path == "net.name" else self.path
        object.__setattr__(self, "path", path)
        if path in NOT_VARIED:
            raise UsageError(f"--vary cannot take {path}: {NOT_VARIED[path]}.")
        if path == START:
            values = [NO_START if one is None else str(one) for one in self.values]
        else:
            set_path({}, path, None)  # raises where there is no such setting
            values = [plain(value) for value in self.values]
        if path == "precision" and "auto" in values:
            raise UsageError(
                "--vary precision=auto is one of the others; name float32 and "
                "mixed_bfloat16."
            )
        object.__setattr__(self, "values", tuple(values))
        if not values:
            raise UsageError(f"--vary {path} names no value.")
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise UsageError(f"--vary {path} has the value {twice[0]!r} twice.")
        if path == START and (len(values) != 2 or NO_START not in values):
            raise UsageError(
                f"--vary {path} compares {NO_START} with one file of weights, run or "
                f"imagenet: {path}={NO_START},imagenet. With --init-weights instead, "
                "all arms start from weights."
            )


def parse(text: str) -> Varied:
    """What an option like "loss.weights=none,w1" means.

    Values are JSON or bare words: "data.size=[96,128],[192,256]".
    """
    path, equals, values = text.partition("=")
    if not equals or not path or not values:
        raise UsageError(
            f"--vary {text!r} gives no values; write PART.NAME=VALUE,VALUE."
        )
    return Varied(path, tuple(map(parse_value, _split(values))))


def _split(text: str) -> list[str]:
    """The parts between the commas that are in no bracket or quotation mark."""
    return re.findall(r'(?:\[[^\]]*\]|\{[^}]*\}|"[^"]*"|[^,\[{"])+', text)


@dataclass(frozen=True)
class Question:
    """What is asked, without the data.

    Attributes:
        values: settings of the base, in parts, as `keras_seg.config.from_dict` takes
            them; those missing have defaults: a size in the images' aspect ratio, Adam,
            ten validations. "net" may be missing where it is varied.
        varied: what the arms are made of.
        one_at_a_time: the base, and arms that differ from it in one value; else every
            combination of the values.
        epochs: how long each arm is trained; None: `steps` of `values`.
        name: of the folder; "" is made of the settings.
        pretrained: the weights that all arms start from; "" for none, or where `START`
            is varied.
    """

    values: Mapping[str, Any]
    varied: tuple[Varied, ...]
    one_at_a_time: bool = False
    epochs: int | None = None
    name: str = ""
    pretrained: str = ""

    def __post_init__(self):
        twice = [
            path for path, n in Counter(v.path for v in self.varied).items() if n > 1
        ]
        if twice:
            raise UsageError(
                f"--vary {twice[0]} is given twice; write all its values in one."
            )
        alone = [v for v in self.varied if len(v.values) == 1]
        if alone and not self.one_at_a_time:
            raise UsageError(
                f"--vary {alone[0].path} has one value, so it varies nothing: name "
                f"others, or use --set, or --one-at-a-time to compare it with the base."
            )
        if self.name and not re.fullmatch(r"[\w][\w.-]*", self.name):
            raise UsageError(f"--name {self.name!r} is no name of a folder.")


def study(question: Question, prepared: Prepared) -> Study:
    """The question as a study of one plan with one stage.

    Raises:
        UsageError: a setting, or an arm's combination of settings, that cannot be.
    """
    base = make_base(question, prepared)
    name = question.name or _name(question, base)
    stage = Stage(
        STAGE,
        ask(question, base, prepared.folder.resolve().name),
        "",
        lambda start: make_arms(question, start, prepared),
        in_chain=True,
    )
    plan = Plan(lambda data: base, (stage,), stride=STRIDE, chained=False)
    paths = ", ".join(varied.path for varied in question.varied)
    title = f"{paths} on {prepared.folder.resolve().name}"
    return Study(STUDY, title, (), facts(prepared), {name: plan})


def validated_as(question: Question, before: Config) -> Question:
    """The question, validated as often as another base where it does not say so."""
    values = dict(question.values)
    validation = {"every": before.validation.every} | dict(values.get("validation", {}))
    return dataclasses.replace(question, values=values | {"validation": validation})


def facts(prepared: Prepared) -> DataFacts:
    """The images' size: the commonest, or one in their median aspect ratio."""
    samples = prepared.samples("train")
    if prepared.image_size is not None:
        return DataFacts(prepared.image_size, len(samples))
    ratios = sorted(sample.height / sample.width for sample in samples)
    return DataFacts((round(1000 * ratios[len(ratios) // 2]), 1000), len(samples))


def make_base(question: Question, prepared: Prepared) -> Config:
    """The configuration that the arms change; its defaults fit the data."""
    values = json.loads(json.dumps(question.values))
    nets = [varied for varied in question.varied if varied.path == "net"]
    net = values.get("net", {})
    net = values["net"] = {"name": net} if isinstance(net, str) else net
    if nets and "name" not in net:
        values["net"] = {**net, "name": _network(nets[0].values[0]).get("name")}
    if "name" not in values["net"]:
        raise UsageError(
            "--net is missing: which network? keras-seg summary lists them."
        )
    optimizer = values.setdefault("optimizer", {})
    if "name" not in optimizer:  # a learning rate is one of an optimizer
        values["optimizer"] = {**RECIPE, **optimizer}
    data = facts(prepared)
    if "size" not in values.get("data", {}):
        set_path(values, "data.size", list(data.size(PIXELS, STRIDE)))
    if "fit" not in values["data"]:
        set_path(values, "data.fit", "letterbox")
    if question.epochs is not None:
        values["steps"] = _steps(from_dict({**values, "steps": 1}), data, question)
    base = training.with_precision(from_dict(values))
    if any(varied.path == START for varied in question.varied):
        base = base.changed(net={"init_weights_sha256": None})
    if "every" not in values.get("validation", {}):
        every = max(1, base.steps // VALIDATIONS)
        base = base.changed(validation={"every": every})
    return base


def _network(value: Any) -> dict[str, Any]:
    """A network that is a value of --vary, as a part of a configuration."""
    return dict(value) if isinstance(value, Mapping) else {"name": value}


def _with_network(config: Config, value: Any) -> Config:
    """The configuration with another network, and with the options that it gives.

    What every network has, its width and what is done to its images, is the base's
    unless it gives it; options of its own are, where it is the base's network.
    """
    net = _network(value)
    if net.get("name") == config.net.name:
        return protocol.with_settings(config, {f"net.{k}": v for k, v in net.items()})
    kept = {name: getattr(config.net, name) for name in ("filter_scale", "preprocess")}
    return protocol.with_settings(config, {"net": kept | net})


def _steps(config: Config, data: DataFacts, question: Question) -> int:
    batch = config.data.batch * config.optimizer.accumulate
    images = config.data.used(data.train_images)
    data = dataclasses.replace(data, train_images=images)
    return data.steps(question.epochs or 1, batch)


def make_arms(question: Question, base: Config, prepared: Prepared) -> list[Arm]:
    """The arms; the first one is what the others are compared with.

    With epochs, each is trained for as many, whatever its batch.
    """
    named = _short_names(question.varied)
    arms: list[Arm] = []
    for chosen in _combinations(question):
        changes = dict(chosen)
        start = changes.pop(START, question.pretrained)
        pretrained = "" if start == NO_START else start
        config = base
        if "net" in changes:
            config = _with_network(base, changes.pop("net"))
        config = protocol.with_settings(config, changes)
        if question.epochs is not None and base.steps > protocol.SMOKE["steps"]:
            steps = _steps(config, facts(prepared), question)
            config = config.changed(steps=steps)
        if any((config, pretrained) == (arm.config, arm.pretrained) for arm in arms):
            continue  # a value that the base has already
        parts = [_words(named[path], value) for path, value in chosen]
        title = ", ".join(parts) or "base"
        name = _unique(title, [arm.name for arm in arms])
        arms.append(Arm(name, title, config, pretrained=pretrained))
    for path in named:
        words, is_read = READ_BY.get(path, ("", lambda config: True))
        if not any(is_read(arm.config) for arm in arms):
            raise UsageError(
                f"--vary {path} changes nothing: it is read by {words} only, and no "
                "arm has that."
            )
    if len(arms) < 2:
        raise UsageError(
            "All arms are alike: the base has the values of --vary already. Name "
            "others."
        )
    return arms


def _combinations(question: Question) -> Iterable[Sequence[tuple[str, Any]]]:
    """The changes of each arm, (path, value)."""
    if question.one_at_a_time:
        yield ()
        for varied in question.varied:
            yield from ([(varied.path, value)] for value in varied.values)
        return
    # The network first: another one drops the options set before it.
    varied = sorted(question.varied, key=lambda one: one.path != "net")
    paths = [one.path for one in varied]
    for values in itertools.product(*(one.values for one in varied)):
        yield list(zip(paths, values))


def ask(question: Question, base: Config, data: str) -> str:
    """The question in a sentence."""
    paths = [v.path for v in question.varied if v.path != "net"]
    subject = ["network"] if len(paths) < len(question.varied) else []
    words = ["start (init_weights)" if path == START else path for path in paths]
    what = " and ".join([*subject, *words])
    of = "" if subject else f" for {base.net.name}"
    is_one = len(question.varied) == 1
    if question.one_at_a_time and not is_one:
        return f"Which of {what} is worth changing{of} on {data}?"
    return f"Which {what} {'is' if is_one else 'are'} best{of} on {data}?"


def _name(question: Question, base: Config) -> str:
    paths = [varied.path for varied in question.varied]
    words = paths if "net" in paths else [base.net.name, *paths]
    return _safe("-".join(words), "-")


def _short_names(varied: Sequence[Varied]) -> dict[str, str]:
    """{path: how arms name it}: its last part where that is clear."""
    every = Counter(path.rpartition(".")[2] for path, *_ in settings())
    short = {one.path: one.path.rpartition(".")[2] for one in varied}
    return {
        p: name if every[name] < 2 or p == "net" else p for p, name in short.items()
    }


def _words(name: str, value: Any) -> str:
    if name == "net":
        return str(value if isinstance(value, str) else _text(value))
    return f"{name} {_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "x".join(map(_text, value))
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "default"}[value]
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _safe(text: str, joint: str = "_") -> str:
    return (
        re.sub(r"[^a-z0-9]+", joint, text.lower()).strip(joint)[:LONGEST_NAME] or "arm"
    )


def _unique(title: str, taken: Sequence[str]) -> str:
    name = _safe(title)
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in taken)
