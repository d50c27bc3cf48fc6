"""What a study, a stage and an arm are, and how a stage's winner is chosen.

A study is a declaration (see ablations/studies): for every network the document's
configuration, what each scale changes of it, and a chain of stages; a stage turns the
configuration it starts from into arms. Nothing here or in the runner knows a study.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_seg.config import Config, from_dict, parse_setting, set_path, to_dict
from keras_seg.errors import UsageError
from keras_seg.runs import train as training

SCALES = ("smoke", "demo", "bench", "paper")
STATES = ("done", "diverged", "oom", "failed", "interrupted", "missing")
SIGNS = {
    ">": "higher",
    "<": "lower",
    "=": "same",
    "<=": "not higher",
    ">=": "not lower",
}
EXPECTED = tuple(SIGNS.values())
# What scale smoke changes of scale demo, beside what a study makes narrower. The size
# is a number of pixels, as in `Plan.scales`.
SMOKE: Mapping[str, Any] = {
    "data.size": 64 * 64,
    "data.batch": 2,
    "optimizer.accumulate": 1,
    "validation.every": 1,
    "validation.samples": 4,
    "validation.batch": 2,
    "steps": 2,
}


@dataclass(frozen=True)
class DataFacts:
    """What a study's durations and sizes depend on.

    Attributes:
        image_size: height and width of the images, px.
        train_images: in the training split.
        classes: of the labels; 0 is any number.
    """

    image_size: tuple[int, int]
    train_images: int
    classes: int = 0

    def steps(self, epochs: float, batch: int) -> int:
        """Optimizer steps of a number of epochs; an epoch's last batch may be short."""
        return max(1, round(epochs * math.ceil(self.train_images / batch)))

    def size(self, pixels: int, stride: int) -> tuple[int, int]:
        """Height and width of about `pixels` pixels in the images' aspect ratio.

        Both are multiples of `stride`, at least one.
        """
        height, width = self.image_size
        zoom = math.sqrt(pixels / (height * width))
        return (
            max(1, round(height * zoom / stride)) * stride,
            max(1, round(width * zoom / stride)) * stride,
        )


@dataclass(frozen=True)
class Arm:
    """One configuration of a stage.

    Attributes:
        name: folder name: lower case, digits, "-" and "_".
        title: as a table's first column shows it.
        config: what is trained; the precision "auto" is decided when the arm is made.
        pretrained: which weights it starts from ("ResNet-50, ImageNet"); the arm is
            left out unless the user names their file. Empty: from scratch.
        colour: "#rrggbb" in which the document draws it, one of
            `keras_seg.plots.COLOURS`; empty: any that is free.
        published: the document's numbers for this arm, in percent: "miou",
            "pixel_accuracy", "f1" if it is the macro F1, "f1_unknown" if it cannot be,
            and the thesis' groups by name; empty if none.
        note: one sentence shown under the table; empty if none.
    """

    name: str
    title: str
    config: Config
    published: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    pretrained: str = ""
    colour: str = ""

    def __post_init__(self):
        object.__setattr__(self, "config", training.with_precision(self.config))

    def settings(self) -> dict[str, Any]:
        """The configuration as plain JSON values, without what tells its runs apart."""
        values = to_dict(self.config)
        del values["seed"]
        if self.config.data.folds is not None:
            del values["data"]["fold"]
        return values


@dataclass(frozen=True)
class Side:
    """What a claim compares: an arm's runs, scored on a split.

    Attributes:
        arm: its name; "winner" of another stage is that stage's winner, unless it has
            an arm of this name.
        stage: the stage it is in; "" is the claim's own.
        split: that the scores are of; "" is the stage's.
    """

    arm: str
    stage: str = ""
    split: str = ""

    def __str__(self) -> str:
        stage = f"{self.stage}/" if self.stage else ""
        return f"{stage}{self.arm}" + (f"@{self.split}" if self.split else "")


@dataclass(frozen=True)
class Claim:
    """What is said about two arms; the report checks it.

    Attributes:
        text: the claim in the document's sense, a clause without a full stop.
        arm, than: [STAGE/]ARM[@SPLIT], see `Side`.
        expected: one of EXPECTED: the metric of `arm` against that of `than`.
        metric: a key of `keras_seg.metrics.summary`, "iou CLASS", "recall CLASS",
            "precision CLASS", or the name of another column of the table of scores
            (`keras_seg.report.tables.columns`), such as "train_val_gap" or
            "train_loss_fall".
        ours: whether it is a hypothesis of ours, which no document states; the
            report keeps the two apart.
        margin: what makes no difference to "same", "not higher" and "not lower": in
            the metric's unit (scores in 0..1), or of the ratio where there is a
            factor. None: 0.01 of a score, a tenth of a factor or of another number.
        factor: `arm` is compared with so many times `than`; None: with `than`, by
            their difference.
    """

    text: str
    arm: str
    than: str
    expected: str
    metric: str = "miou"
    ours: bool = False
    margin: float | None = None
    factor: float | None = None

    def __post_init__(self):
        if self.expected not in EXPECTED:
            raise ValueError(f"expected {self.expected!r} is none of {EXPECTED}")
        for name in ("margin", "factor"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} {value!r} of “{self.text}” is not above 0")
        if self.margin is not None and self.expected in ("higher", "lower"):
            raise ValueError(
                f"“{self.text}” expects {self.expected}, which takes no margin"
            )
        self.sides  # noqa: B018 (raises where one cannot be read)

    @property
    def sides(self) -> tuple[Side, Side]:
        """Of `arm` and of `than`; ValueError where they cannot be read."""
        return _side(self.arm), _side(self.than)


def _side(text: str) -> Side:
    found = re.fullmatch(r"(?:([\w-]+)/)?([\w-]+)(?:@(train|val|test))?", text)
    if found is None:
        raise ValueError(f"{text!r} is not [STAGE/]ARM[@SPLIT]")
    stage, arm, split = (part or "" for part in found.groups())
    return Side(arm, stage, split)


def claim(
    text: str,
    comparison: str,
    metric: str = "miou",
    *,
    ours: bool = False,
    margin: float | None = None,
) -> Claim:
    """A claim from a comparison of two arms.

    "w1 < none", "a = b", "a <= b" (not higher), "a >= b" (not lower), "a = 2 * b"
    (twice as high), "final/long >= short" (another stage's arm), "a@test = a@val".

    Raises:
        ValueError: it is no such comparison.
    """
    words = comparison.split()
    factor = None
    if len(words) == 5 and words[3] == "*":
        factor = float(words[2])
        del words[2:4]
    if len(words) != 3 or words[1] not in SIGNS:
        raise ValueError(f"{comparison!r} is not ARM SIGN [FACTOR *] ARM")
    arm, sign, than = words
    return Claim(text, arm, than, SIGNS[sign], metric, ours, margin, factor)


@dataclass(frozen=True)
class Stage:
    """One question, and the arms that answer it.

    Attributes:
        name: as given to --stage.
        question: one sentence ending in a question mark.
        source: document, section and table the stage is from.
        arms: base configuration -> arms; the first one is the base of comparison.
        published_winner: name of the arm the document chose, None if it chose none.
            Later stages start from it where this stage was not run.
        split: the split the final numbers are on.
        in_chain: whether --stage all runs it.
        decides: whether later stages start from its winner.
        full_size: whether the final numbers are at the labels' own size.
        exports: whether the winner is exported (`keras_seg.runs.export`).
        claims: what the document says the stage shows, and what we ask besides.
        curves: columns of history.csv, after "train_" and "val_", that are drawn
            beside the loss.
        sheets: pictures of the data that belong to the question: keys of
            `keras_seg.report.sheets.SHEETS`.
        datasets: names (meta.json) on which published numbers may stand beside
            ours; empty: those of the study.
        data: the document's data, where they are not the study's.
        others: {name: {metric: percent}} of the studies of other authors that the
            document's table compares itself with; keys as of `Arm.published`.
        panels: {title: {name of an arm: what it is called there}}: arms that belong
            in one picture, each panel with curves and pictures of its own; an arm may
            be in several, one in none is not drawn. Up to
            `keras_seg.plots.MOST_LABELS` arms can be told apart in one. Empty: all
            arms, or the best of many, in one picture.
    """

    name: str
    question: str
    source: str
    arms: Callable[[Config], Sequence[Arm]]
    published_winner: str | None = None
    split: str = "val"
    in_chain: bool = True
    decides: bool = True
    full_size: bool = False
    exports: bool = False
    claims: tuple[Claim, ...] = ()
    curves: tuple[str, ...] = ("miou",)
    sheets: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    data: DataFacts | None = None
    others: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    panels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A network's part of a study, or the whole of one that compares networks.

    Attributes:
        paper: the data -> the document's configuration of the first stage's base.
        stages: in the order of the document.
        scales: {scale: {path of a setting: value}}: what "demo" and "bench" change of
            the paper's configuration. "smoke" is derived from demo (`SMOKE`) and
            states only what else has to be smaller. The value of "data.size" may be a
            number of pixels: the size of about that many, in the images' aspect ratio.
        stride: what those sizes are multiples of.
        chained: whether a later stage starts from the winners of those before it;
            else every one starts from the base.
        pretrained: which weights the base may start from (--init-base); empty if it
            starts from scratch always.
    """

    paper: Callable[[DataFacts], Config]
    stages: tuple[Stage, ...]
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stride: int = 32
    chained: bool = True
    pretrained: str = ""

    def base(self, scale: str, data: DataFacts) -> Config:
        """The configuration of the first stage's base at a scale."""
        paper = self.paper(data)
        changes = dict(self.scales.get(scale, {}))
        if scale == "smoke":
            # Gamma and beta are frozen and trained, where the paper does both.
            frozen = {"optimizer.bn_start": min(1, paper.optimizer.bn_start)}
            changes = {**self.scales.get("demo", {}), **SMOKE, **frozen, **changes}
        if isinstance(changes.get("data.size"), int):
            changes["data.size"] = data.size(changes["data.size"], self.stride)
        return with_settings(paper, changes)

    def stage(self, name: str) -> Stage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = ", ".join(stage.name for stage in self.stages)
        raise UsageError(f"There is no stage {name!r} here. Stages: {names}, all.")

    def before(self, stage: Stage) -> tuple[Stage, ...]:
        """The stages whose winners a stage starts from."""
        earlier = self.stages[: self.stages.index(stage)] if self.chained else ()
        return tuple(each for each in earlier if each.decides)


NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def check_stage(plan: Plan, stage: Stage, arms: Sequence[Any]) -> None:
    """Check a stage and the arms it made, before any is trained.

    Raises:
        UsageError: what makes no sense, with the stage and the arm.
    """

    def refuse(what: str):
        raise UsageError(f"The stage {stage.name}: {what}.")

    names = [getattr(arm, "name", arm) for arm in arms]
    if not arms:
        refuse("it makes no arm")
    for arm in arms:
        if not isinstance(arm, Arm) or not isinstance(arm.config, Config):
            refuse(f"{arm!r:.60} is no Arm with a Config")
    for name in (stage.name, *names):
        if not NAME.fullmatch(name):
            refuse(f"{name!r} is no name: lower case, digits, - and _")
    if twice := [name for name in names if names.count(name) > 1]:
        refuse(f"two arms are named {twice[0]!r}")
    if stage.split not in ("train", "val", "test"):
        refuse(f"split is {stage.split!r}; it must be train, val or test")
    known = f"its arms are {', '.join(names)}"
    if stage.published_winner not in (None, *names):
        refuse(f"published_winner is {stage.published_winner!r}, but {known}")
    shown = [name for panel in stage.panels.values() for name in panel]
    if missing := [name for name in shown if name not in names]:
        refuse(f"a panel shows the arm {missing[0]!r}, but {known}")
    stages = [each.name for each in plan.stages]
    for one in stage.claims:
        for side in one.sides:
            if side.stage and side.stage not in stages:
                refuse(
                    f"the claim “{one.text}” names the stage {side.stage!r}; there are "
                    f"{', '.join(stages)}"
                )
            if not side.stage and side.arm not in names:
                refuse(
                    f"the claim “{one.text}” names the arm {side.arm!r}, but {known}"
                )


@dataclass(frozen=True)
class Part:
    """The stages of one network that are asked for, and where they start.

    Attributes:
        net: name of the plan and of its folder.
        plan, stages: of the study; the stages are those asked for.
        base: configuration of the first stage's base.
    """

    net: str
    plan: Plan
    stages: Sequence[Stage]
    base: Config


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """{path: value} of texts like "loss.weights=w1"."""
    return dict(map(parse_setting, texts))


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """A copy with other values for the settings named by their paths.

    "net" with a mapping replaces the network and all its knobs.

    Raises:
        UsageError: an unknown setting, or a value that it cannot take.
    """
    values = to_dict(config)
    for path, value in settings.items():
        if path == "net" and isinstance(value, Mapping):
            values["net"] = dict(value)
        else:
            set_path(values, path, value)
    return training.with_precision(from_dict(values))


@dataclass(frozen=True)
class Study:
    """A set of experiments of one document.

    Attributes:
        name: as given to --study.
        title: heading of its report.
        datasets: names (meta.json) on which published numbers may stand beside ours.
        data: the document's data, for --plan and --list where none are prepared.
        plans: {net: its stages}; stages that compare networks are in a plan named
            "networks".
        groups: {dataset: {group name: class ids}} for grouped accuracies.
        compare: {net: stage} whose winners --stage compare puts side by side.
        compare_source: document and section of that comparison.
        synthetic: whether it runs on the synthetic humans where no data are given.
        seeds: runs per arm of the document: those at scale paper, unless others are
            asked for.
        demo_seeds: those at scale demo, in which its steps should fit.
    """

    name: str
    title: str
    datasets: tuple[str, ...]
    data: DataFacts
    plans: Mapping[str, Plan]
    groups: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    compare: Mapping[str, str] = field(default_factory=dict)
    compare_source: str = ""
    synthetic: bool = False
    seeds: int = 1
    demo_seeds: int = 1

    def facts(self, stage: Stage) -> DataFacts:
        """The document's data of a stage."""
        return stage.data or self.data

    def networks(self) -> list[str]:
        """The networks of its plans, those of the arms where a plan compares some."""
        found: list[str] = []
        for name, plan in self.plans.items():
            if name == "networks":
                base = plan.base("paper", self.data)
                arms = [arm for stage in plan.stages for arm in stage.arms(base)]
                found += [arm.config.net.name for arm in arms]
            else:
                found.append(name)
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class ArmResult:
    """What became of one arm with one seed.

    Attributes:
        arm, seed, run: which arm, which seed, its run folder; with folds the first's.
        state: one of STATES.
        reason: one line where the state is not "done", else "".
        metrics: metrics.json as a dict, None unless done.
        history: the lines of history.csv, numbers as floats.
        timing: {name: value} of timing.csv (seconds, images/s, ms/image).
        val_miou: mIoU on the validation images, of the same step; NaN if not known.
        folds: what became of each fold, where there are some (`merge_folds`).
    """

    arm: Arm
    seed: int
    run: Path
    state: str
    reason: str = ""
    metrics: Mapping | None = None
    history: Sequence[Mapping[str, float]] = ()
    timing: Mapping[str, float] = field(default_factory=dict)
    val_miou: float = math.nan
    folds: "tuple[ArmResult, ...]" = ()

    @property
    def trainings(self) -> "tuple[ArmResult, ...]":
        """The folds, or where there are none the result itself."""
        return self.folds or (self,)

    @property
    def miou(self) -> float:
        return self.metrics["summary"]["miou"] if self.metrics else math.nan

    @property
    def chosen_on_val(self) -> bool:
        """Whether `val_miou` chooses, as `metrics` are not of the validation images."""
        is_val = not self.metrics or self.metrics.get("split", "val") == "val"
        return not is_val and not math.isnan(self.val_miou)

    @property
    def parameters(self) -> int:
        return self.metrics["parameters"]["trainable"] if self.metrics else 0


def merge_folds(folds: Sequence[ArmResult]) -> ArmResult:
    """The result of an arm's trainings with one seed, a fold of the images each.

    Its scores are those of all images together, each predicted by the training that
    never saw it: the confusion matrices are added. Histories and times are means. It is
    done when all folds are; else its state is that of the first one that is not.
    """
    first = folds[0]
    histories = [fold.history for fold in folds if fold.history]
    history = [_mean_row(rows) for rows in zip(*histories)]
    missing = [fold for fold in folds if fold.state != "done"]
    if missing:
        found = min(missing, key=lambda fold: _URGENCY.index(fold.state))
        reason = f"fold {folds.index(found)}: {found.reason}" if found.reason else ""
        return ArmResult(
            *(first.arm, first.seed, first.run, found.state, reason),
            history=history,
            folds=tuple(folds),
        )
    from keras_seg.runs import evaluate  # imports Keras

    timing = _mean_row([fold.timing for fold in folds])
    metrics = evaluate.merged([fold.metrics or {} for fold in folds])
    return ArmResult(
        *(first.arm, first.seed, first.run, "done", "", metrics, history, timing),
        val_miou=metrics["summary"]["miou"],
        folds=tuple(folds),
    )


# Of which state a result is whose folds have several; "diverged" is an end, and the
# others before it are none
_URGENCY = ("failed", "oom", "interrupted", "missing", "diverged")


def _mean_row(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    keys = [key for key in rows[0] if all(key in row for row in rows)]
    return {key: sum(row[key] for row in rows) / len(rows) for key in keys}


@dataclass(frozen=True)
class StageResult:
    """A stage with the results of its arms, in the stage's order, seeds together.

    Attributes:
        stage, results: the stage and one ArmResult per arm and seed.
        winner: name of the winning arm, None while no arm is done.
        start: one sentence: which configuration the stage started from, and why.
    """

    stage: Stage
    results: tuple[ArmResult, ...]
    winner: str | None
    start: str

    def of(self, arm_name: str) -> tuple[ArmResult, ...]:
        return tuple(r for r in self.results if r.arm.name == arm_name)

    @property
    def arms(self) -> tuple[Arm, ...]:
        return tuple({r.arm.name: r.arm for r in self.results}.values())


def choose_winner(results: Sequence[ArmResult]) -> str | None:
    """The arm with the higher mean mIoU; ties: the fewer parameters.

    Means are over the seeds that are done, on the validation images (BODY 3.1:
    "regarding validation results"), also where the stage's numbers are of another
    split; on that one only if a run's validation mIoU is not known. None if no arm is
    done.
    """
    done: dict[str, list[ArmResult]] = {}
    for result in results:
        if result.state == "done":
            done.setdefault(result.arm.name, []).append(result)
    if not done:
        return None

    on_val = all(run.chosen_on_val for runs in done.values() for run in runs)

    def rank(name: str) -> tuple[float, int]:
        mious = [run.val_miou if on_val else run.miou for run in done[name]]
        return (-sum(mious) / len(mious), done[name][0].parameters)

    return min(done, key=rank)
