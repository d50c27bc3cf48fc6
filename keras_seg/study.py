"""From a request to a report: the data, the stages of a study, the export, the page.

A command line becomes a `Request` once (`parse`); `run` takes it from there. The
documents' studies are declarations in ablations/studies of a checkout; a study of one's
own is named by its path.
"""

import dataclasses
import difflib
import importlib.util
import itertools
import math
import os
import shlex
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_seg import command_line
from keras_seg.ablation import estimate, grid, plans, protocol, runner
from keras_seg.ablation.protocol import DataFacts, Part, Plan, Stage, StageResult, Study
from keras_seg.command_line import positive_int
from keras_seg.data import folds
from keras_seg.data.prepared import Prepared, open_prepared
from keras_seg.data.summary import summarise
from keras_seg.errors import ArmsFailedError, KerasSegError, UsageError
from keras_seg.report import wording
from keras_seg.report.grouping import FEWEST_GROUPS
from keras_seg.runs import executors, face, recipes
from keras_seg.runs import train as training
from keras_seg.runs.options import training_key

if TYPE_CHECKING:
    from keras_seg.report.view import Context

ROOT = Path(__file__).resolve().parents[1]  # of the checkout
STUDIES = ROOT / "ablations" / "studies"
COSTS = ROOT / "ablations" / "costs.csv"  # of python tools/summary.py --costs
# Of the working directory, as all paths that are written to
SYNTHETIC_RAW = Path("datasets/raw/synthetic_humans")
SYNTHETIC = Path("datasets/prepared/synthetic_humans")
# Many people with few frames each generalise better than few people with many. Train,
# validation and test clips.
CLIPS = (400, 60, 60)
FRAMES = 4
SYNTHETIC_SIZE = (320, 320)
# Of the document's training images: with fewer the data were cut, not cleaned
LEAST_SHARE = 0.9
VALIDATION_SHARE = 6  # training images for one of validation; BODY 2.2
MOST_JOBS = 64  # tasks given to a cluster at once; it queues what does not fit
DESCRIPTION = """Run a stage of a study: train its arms, choose a winner, report.

{0} --net icnet --stage weighting
{0} --net icnet --stage all --data datasets/prepared/camvid

The same command resumes an interrupted one and skips what is done."""
DEFAULT_STUDY = "body_parts"
ENOUGH_SEEDS = 3  # with fewer, more are the next step
COMPARE = "compare"  # the stage that puts the winners of all networks side by side


def option(default: Any = None, help: str = "", **how: Any) -> Any:
    """A field of `Request` and its option; `how` are arguments of add_argument."""
    return field(default=default, metadata={"help": help, **how})


def switch(help: str) -> Any:
    return option(False, help, action="store_true")


@dataclass(frozen=True)
class Request:
    """What a command line asks of a study; a field's help is that of its option."""

    net: str | None = option(help="which network; see --list")
    vary: tuple[grid.Varied, ...] = option(
        (),
        "a question of your own: the values of a setting, loss.weights=none,w1; "
        "several make every combination",
        action="append",
        metavar="KEY=A,B",
    )
    one_at_a_time: bool = switch(
        "compare the base with one changed value at a time, not every combination"
    )
    config: Path | None = option(
        help="with --vary: JSON file of settings to start from, such as a run's",
        type=Path,
        metavar="FILE",
    )
    recipe: str | None = option(
        help="with --vary: a recipe to start from, such as modern, or its TOML file",
        metavar="NAME",
    )
    steps: int | None = option(
        help="with --vary: of every arm", type=positive_int, metavar="N"
    )
    epochs: int | None = option(
        help="with --vary: of every arm", type=positive_int, metavar="N"
    )
    budget: float | None = option(
        help="with --vary: a time, 2h or 45m; the arms are timed, and all get as many "
        "steps as fit",
        metavar="TIME",
    )
    name: str = option(
        "", "with --vary: of its folder, OUT/own/NAME; default: of the settings"
    )
    stage: str | None = option(help="a stage, all of the chain, or compare; see --list")
    study: str = option(DEFAULT_STUDY, "its name, or a path ending in .py")
    data: Path | None = option(
        help="prepared folder; default: the synthetic humans, for studies of bodies",
        type=Path,
    )
    scale: str = option(
        "demo",
        "how large and long: a test, minutes, an afternoon, the document's",
        choices=protocol.SCALES,
    )
    size: tuple[int, int] | None = option(
        help="of the images", nargs=2, type=positive_int, metavar=("H", "W")
    )
    settings: Mapping[str, object] = option(
        (),
        "a setting of every arm's base, such as optimizer.lr=0.001; may be repeated",
        flag="--set",
        action="append",
        metavar="KEY=VALUE",
    )
    seeds: int | None = option(
        help="runs per arm; default: 1, at scale demo 2 of body_parts, at scale paper "
        "as many as the document has",
        type=positive_int,
        metavar="K",
    )
    folds: int | None = option(
        help="divide the training and validation images into K parts, and train every "
        "arm K times, each time without another one, on which it is scored",
        type=positive_int,
        metavar="K",
    )
    jobs: int | None = option(
        help="arms at the same time; default: 1, with GPUs one on each, with ray as "
        "many as fit",
        type=positive_int,
        metavar="N",
    )
    shard: tuple[int, int] | None = option(
        help="train only share I of N of one stage, beside processes with the other "
        "shares; the same command without it then reports",
        type=command_line.share,
        metavar="I/N",
    )
    executor: str = option(
        "local",
        "where arms are run: here, or on the Ray cluster of RAY_ADDRESS",
        choices=executors.EXECUTORS,
    )
    threads: int | None = option(
        help="of each arm; default: the cores", type=positive_int, metavar="N"
    )
    out: Path = option(Path("runs"), "results are in OUT/STUDY/NET", type=Path)
    init_weights: str | None = option(
        help="for the arms that start from pretrained weights; see --list",
        metavar="FILE|imagenet",
    )
    init_base: bool = switch(
        "let the base of the stages start from --init-weights as well"
    )
    winners: tuple[str, ...] = option(
        (),
        "start from this arm of an earlier stage; once for each such stage",
        flag="--winner",
        action="append",
        metavar="[STAGE/]ARM",
    )
    restart: bool = switch("train every arm of the stage anew")
    extend: bool = switch("with more steps: train what is there on")
    allow_inexact: bool = switch(
        "resume a run although the machine or a library changed; train in bfloat16 "
        "where it is slow"
    )
    tensorboard: bool = switch("let every run keep a log for TensorBoard as well")
    json: bool = switch("with --plan: every setting of each arm, as a line of JSON")
    action: str = "run"  # a key of ACTIONS
    command: str = ""  # the command line, for the report

    def __post_init__(self):
        settings = dict(self.settings)
        object.__setattr__(self, "settings", settings)
        named = self.winners
        named = (named,) if isinstance(named, str) else tuple(named or ())
        object.__setattr__(self, "winners", named)
        if self.json and self.action != "plan":
            raise UsageError("--json goes with --plan, which it lacks here.")
        if {"seed", "net", "net.name"} & settings.keys():
            raise UsageError(
                "--set cannot change the seed or the network: --seeds K runs the seeds "
                "0 to K - 1, --net names a network."
            )
        if {"data.folds", "data.fold"} & settings.keys():
            raise UsageError(
                "--set cannot name a fold: --folds K trains every arm once for each of "
                "K folds."
            )
        if self.folds is not None and self.folds < 2:
            raise UsageError(
                f"--folds is {self.folds}; each fold is held out from the others, so "
                "there must be at least 2."
            )
        if self.size is not None and "data.size" in settings:
            raise UsageError("--size and --set data.size both name a size; give one.")
        if self.init_base and self.init_weights is None:
            raise UsageError("--init-base needs the weights: --init-weights FILE.")
        is_varied = any(varied.path == grid.START for varied in self.vary)
        if is_varied and self.init_weights is not None:
            raise UsageError(
                f"--init-weights and --vary {grid.START} both say what arms start "
                "from; give one."
            )
        if self.init_base and self.vary:
            raise UsageError(
                "--init-base is of a stage of a study; with --vary every arm starts "
                "from --init-weights as it is."
            )
        self._check_own()

    @property
    def weights(self) -> str | None:
        """What the arms start from that start from weights."""
        for varied in self.vary:
            if varied.path == grid.START:
                return next(one for one in varied.values if one != grid.NO_START)
        return self.init_weights

    def _check_own(self) -> None:
        """UsageError where options of a question of one's own and of a study mix."""
        lengths = {
            "--steps": self.steps,
            "--epochs": self.epochs,
            "--budget": self.budget,
            "--set steps": dict(self.settings).get("steps"),
        }
        given = [name for name, value in lengths.items() if value is not None]
        own = [name for name in given if name != "--set steps"]
        own += ["--config"] if self.config is not None else []
        own += ["--recipe"] if self.recipe is not None else []
        own += ["--one-at-a-time"] if self.one_at_a_time else []
        own += ["--name"] if self.name else []
        if not self.vary and own:
            raise UsageError(
                f"{own[0]} is of a question of your own, which --vary asks; a stage of "
                "a study takes --set, such as --set steps=2000."
            )
        if not self.vary:
            return
        if self.stage is not None or self.study != DEFAULT_STUDY or self.winners:
            raise UsageError(
                "--vary asks a question of your own: leave out --study, --stage and "
                "--winner."
            )
        if len(given) > 1:
            raise UsageError(
                f"Both {given[0]} and {given[1]} say how long; give one of the two."
            )

    @property
    def is_comparison(self) -> bool:
        return self.stage == COMPARE


@dataclass(frozen=True)
class Answer:
    """A stage's answer: the verdict, and commands that go on from it.

    Attributes:
        verdict: as the report has it.
        next_steps: (what for, the command).
    """

    verdict: str
    next_steps: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        path: of report.html.
        answers: {stage: its answer} of those with a winner.
        left_out: what it lacks because a file is damaged, in sentences.
    """

    path: Path = Path()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class Outcome:
    """What a request came to.

    Attributes:
        results: of the stages asked for; of the comparison where that was asked for.
        report: path of report.html.
        answers: one for each of them that has a winner.
    """

    results: Sequence[StageResult]
    report: Path
    answers: Sequence[Answer] = ()

    @property
    def winner(self) -> Path | None:
        """The winner's run folder, of its first seed that is done; None without one.

        With folds the stage's folder, which stands for the winner's runs of all folds.
        """
        for stage in self.results:
            for result in stage.of(stage.winner or ""):
                if result.state == "done":
                    folder = self.report.parent / stage.stage.name
                    return folder if result.folds else result.run
        return None


def ablate(
    *,
    data: Prepared | str | Path | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None,
    **options: Any,
) -> Outcome:
    """Compare settings on a prepared folder, or run a stage of a study; resumable.

    Args:
        data: the prepared folder.
        vary: {path of a setting: its values}, {"loss.weights": ["none", "w1"]}; or
            {"init_weights": [None, "imagenet"]}, what training starts from.
        **options: as the options of `keras-seg ablate`: net="icnet", steps=400 or
            epochs or budget="2h", seeds=3, one_at_a_time=True, settings={path: value},
            out="runs"; or study, stage, scale.

    Returns:
        `Outcome`: the results, the path of report.html, the winner's run folder.

    Raises:
        UsageError: an option that does not exist, or a question that makes no sense.
        DataError, StorageError, LockedError: as `keras_seg.train`.
    """
    known = {spec.name for spec in dataclasses.fields(Request)} - {"action", "command"}
    if unknown := sorted(options.keys() - known):
        raise UsageError(
            f"ablate has no option {unknown[0]!r}; it has {', '.join(sorted(known))}."
        )
    words = [f"{name}={value!r}" for name, value in options.items()]
    if vary is not None:
        if not isinstance(vary, Mapping) or any(
            isinstance(values, str) or not isinstance(values, Iterable)
            for values in vary.values()
        ):
            raise UsageError(
                f"vary is {vary!r}; write "
                '{"loss.weights": ["none", "w1"]}, a list for each setting.'
            )
        words.insert(0, f"vary={dict(vary)!r}")
        options["vary"] = tuple(grid.Varied(k, tuple(v)) for k, v in vary.items())
    if data is not None:
        options["data"] = data.folder if isinstance(data, Prepared) else Path(data)
        words.insert(0, f"data={str(options['data'])!r}")
    for name in ("out", "config"):
        if options.get(name) is not None:
            options[name] = Path(options[name])
    if options.get("init_weights") is not None:
        options["init_weights"] = str(options["init_weights"])
    if isinstance(options.get("budget"), str):
        options["budget"] = command_line.time_span(options["budget"])
    return run(Request(**options, command=f"keras_seg.ablate({', '.join(words)})"))


def main(argv: list[str], prog: str = "python ablations/run.py") -> int:
    """Answer a command line; `prog` is how it was called."""
    request = parse(argv, prog)
    for line in ACTIONS[request.action](request):
        print(line)
    return 0


def parse(argv: list[str], prog: str) -> Request:
    """The request of a command line, without reading or checking any file."""
    parser = command_line.Parser(prog=prog, description=DESCRIPTION.format(prog))
    for spec in dataclasses.fields(Request):
        if spec.metadata:
            how = {"dest": spec.name, **spec.metadata}
            flag = how.pop("flag", f"--{spec.name.replace('_', '-')}")
            if spec.default and spec.default != ():
                how["help"] += f"; default: {spec.default}"
            default = [] if spec.default == () else spec.default
            parser.add_argument(flag, default=default, **how)
    parser.add_argument("--list", action="store_true", help="show studies and stages")
    parser.add_argument(
        "--plan", action="store_true", help="show the arms and settings; run nothing"
    )
    values = vars(parser.parse_args(argv))
    if "" in argv:
        name = argv[argv.index("") - 1]
        raise UsageError(f"{name} is empty; name a folder or leave the option out.")
    is_list, is_plan = values.pop("list"), values.pop("plan")
    values["settings"] = protocol.parse_settings(values["settings"])
    values["size"] = values["size"] and tuple(values["size"])
    values["vary"] = tuple(map(grid.parse, values["vary"]))
    values["budget"] = values["budget"] and command_line.time_span(values["budget"])
    values["action"] = "list" if is_list else "plan" if is_plan else "run"
    return Request(**values, command=f"{prog} {shlex.join(argv)}")


def run(request: Request) -> Outcome:
    """Train what a request asks for: data, stages with their exports, report.

    The report is written after every stage, and also when a stage is interrupted.

    Raises:
        UsageError: a request that makes no sense; nothing was written.
        DataError: the data are missing or damaged.
        LockedError: another process works on the same folder.
    """
    study, prepared = find(request)
    parts = choose(request, study, prepared)
    check_requirements(request, parts, prepared)
    seconds = math.nan
    if prepared is not None and request.budget is not None:
        steps, seconds = fit_budget(request, study, parts[0], prepared)
        study = grid.study(ask(request, steps), prepared)
        parts = choose(request, study, prepared)
    check_own_size(request, study, parts, prepared)
    if prepared is None:
        prepared = divided(make_synthetic_humans(), request)
    results, path, said = [], Path(), []
    for part in parts:
        execution = make_execution(request, study, part.net, prepared)
        with execution.locked():
            whole = folds.divide(prepared, None)
            of_data = data_header(whole) if part is parts[0] else ()
            for line in (*of_data, *header(request, study, part, execution, seconds)):
                command_line.note(line)
            found, report = [], Report()
            if request.shard is not None:
                results.append(share(request, part, execution))
                continue
            for found in runner.run_stages(
                part.plan,
                part.stages,
                part.base,
                execution,
                request.winners,
                after_each=request.scale != "smoke",
            ):
                report = write_report(request, study, execution, found)
                if line := best_so_far(found, report.path):
                    command_line.note(line)
            asked = [result for result in found if result.stage in part.stages]
            said += told(report, asked)
            path = report.path
        results += asked
    if not request.is_comparison:
        return Outcome(results, path, said)
    execution = make_execution(request, study, COMPARE, prepared)
    results = [compare(study, results)]
    with execution.locked():
        report = write_report(request, study, execution, results)
        return Outcome(results, report.path, told(report, results))


# What is asked for


def find(request: Request) -> tuple[Study, Prepared | None]:
    """The study and the data that a request is about; as `open_data`.

    Raises:
        UsageError: no such study, or a question that makes no sense.
        DataError: the data are missing or damaged.
    """
    if not request.vary:
        study = load(request.study)
        return study, open_data(request, study)
    if request.data is None:
        raise UsageError(
            "--data is missing: a question of your own is about a prepared folder. "
            "datasets/prepare.py makes one of your images."
        )
    prepared = divided(open_prepared(request.data), request)
    question = ask(request, steps=1 if request.budget is not None else None)
    study = grid.study(question, prepared)
    if request.extend:  # what is there goes on being validated as often
        (name,) = study.plans
        before = runner.read_base(request.out / grid.STUDY / name)
        if before is not None:
            question = grid.validated_as(question, before)
            study = grid.study(question, prepared)
    return study, prepared


def ask(request: Request, steps: int | None = None) -> grid.Question:
    """The question that a request asks.

    Args:
        request: with `vary`.
        steps: those that a budget leaves; None: as the request says.
    """
    values = face.read_config(request.config)
    for name in ("seed", "extended"):
        values.pop(name, None)
    data = dict(values.get("data", {}))
    data.pop("fold", None)
    values["data"] = data | {"folds": request.folds}
    recipes.apply(values, request.recipe)
    if request.net is not None:
        face.set_part(values, "net", request.net)
    if request.size is not None:
        face.set_part(values, "data", {"size": request.size})
    for path, value in request.settings.items():
        part, _, name = path.partition(".")
        face.set_part(values, part, {name: value} if name else value)
    length = steps or request.steps
    if length is not None:
        values["steps"] = length
    if "steps" not in values and request.epochs is None:
        raise UsageError(
            "How long is each arm trained? Give --steps N, --epochs N or --budget TIME."
        )
    how: dict[str, Any] = {"one_at_a_time": request.one_at_a_time, "name": request.name}
    how["pretrained"] = request.init_weights or ""
    return grid.Question(values, request.vary, epochs=request.epochs, **how)


def fit_budget(
    request: Request, study: Study, part: Part, prepared: Prepared
) -> tuple[int, float]:
    """How many steps fit into the budget, and the seconds that they should take."""
    execution = make_execution(request, study, part.net, prepared)
    (stage,) = part.stages
    validation = ask(request, steps=1).values.get("validation", {})
    with execution.locked():
        return estimate.budget_steps(
            request.budget or math.inf,
            part.base,
            [arm.config for arm in stage.arms(part.base)],
            prepared,
            execution.folder,
            trainings=seeds(request, study) * (request.folds or 1),
            validations=grid.VALIDATIONS,
            every=validation.get("every"),
            threads=execution.threads,
            launch=execution.launch,
            anew=request.restart and request.shard is None,
        )


def names() -> list[str]:
    """The documents' studies."""
    return sorted(path.stem for path in STUDIES.glob("*.py"))


def load(study: str) -> Study:
    """A study by its name or the path of its file: the one place that runs such code.

    Raises:
        UsageError: no such study, or a file that declares none or cannot be run.
    """
    path = Path(study) if study.endswith(".py") else STUDIES / f"{study}.py"
    if not path.is_file():
        known = ", ".join(names()) or "none here: they are in a checkout of the project"
        raise UsageError(
            f"There is no study {study!r}. Studies: {known}. A study of your own is "
            "named by the path of its .py file."
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be loaded as a study.")
    module = importlib.util.module_from_spec(spec)
    with blaming(f"{path} cannot be loaded as a study"):
        spec.loader.exec_module(module)
    found = getattr(module, "STUDY", None)
    if not isinstance(found, Study):
        raise UsageError(f"{path} declares no study: it needs STUDY = Study(...).")
    return found


def open_data(request: Request, study: Study) -> Prepared | None:
    """The prepared folder; None where the synthetic humans are still to be made."""
    if request.data is not None:
        return divided(open_prepared(request.data), request)
    if not study.synthetic:
        if request.action == "plan":  # of the document's data
            return None
        raise UsageError(
            f"--data is missing. The study {study.name} wants "
            f"{study.datasets[0] if study.datasets else 'a prepared folder'}: "
            "prepare it with datasets/prepare.py and name the folder."
        )
    return divided(open_prepared(SYNTHETIC), request) if SYNTHETIC.is_dir() else None


def divided(prepared: Prepared, request: Request) -> Prepared:
    """The data as the first fold of the request has them, where it asks for folds.

    UsageError where there are fewer sequences, or images without one.
    """
    return folds.divide(prepared, request.folds)


def choose(request: Request, study: Study, prepared: Prepared | None) -> list[Part]:
    """The stages of each network that is asked for; several only to compare.

    Raises:
        UsageError: an unknown network, stage or winner, or a size that the base's
            network cannot take.
    """
    parts = []
    if request.shard is not None and not request.vary:
        if request.stage in (None, "all", COMPARE):
            raise UsageError(
                "--shard trains a share of one stage, since the next one starts from "
                "its winner. Name a stage with --stage."
            )
    if request.vary:
        ((name, plan),) = study.plans.items()
        facts = data_facts(request, study, plan.stages[0], prepared)
        return [Part(name, plan, plan.stages, plan.base(request.scale, facts))]
    for net, plan, asked in _stages(request, study):
        if request.stage == "all" and prepared is not None:
            asked = _relevant(asked, prepared)
        # Only a plan without data may have stages of several data sets.
        for facts, stages in itertools.groupby(
            asked, lambda stage: data_facts(request, study, stage, prepared)
        ):
            parts.append(_part(request, net, plan, list(stages), facts, prepared))
    return parts


def _part(
    request: Request,
    net: str,
    plan: Plan,
    stages: list[Stage],
    facts: DataFacts,
    prepared: Prepared | None,
) -> Part:
    """Stages of one network with the base they start from."""
    with blaming(f"The configuration of {net} in {request.study} cannot be made"):
        base = plan.base(request.scale, facts)
    if prepared is not None and prepared.fit != base.data.fit:  # own photographs
        base = base.changed(data={"fit": prepared.fit})
    base = protocol.with_settings(base, request.settings)
    if request.size is not None:
        base = base.changed(data={"size": request.size})
    if request.folds is not None:
        base = base.changed(data={"folds": request.folds})
    if request.init_base and request.init_weights is not None:
        if not plan.pretrained:
            raise UsageError(
                f"--init-base: the stages of {net} start from no published weights. "
                "Leave it out; arms that start from weights take --init-weights alone."
            )
        file = training.weights_file(request.init_weights, base.net.name)
        base = base.changed(net={"init_weights_sha256": training.sha256(file)})
    if not base.net.knobs:  # with knobs, asking imports Keras
        training.check_size(base)
    runner.check_winners(plan, stages, base, request.winners)
    part = Part(net, plan, stages, base)
    if request.folds is not None:
        check_folds(request, part)
    return part


def check_folds(request: Request, part: Part) -> None:
    """UsageError where a stage is scored on other images, or an arm sets the folds."""
    for stage in part.stages:
        if stage.split != "val":
            raise UsageError(
                f"The stage {stage.name} is scored on the {stage.split} images, but "
                "--folds scores the training and validation images. Leave it out, or "
                "name a stage with --stage that is scored on validation images."
            )
        for arm in _arms(request, part, stage):
            if arm.config.data.folds != request.folds:
                raise UsageError(
                    f"The stage {stage.name}: its arm {arm.name} sets data.folds, "
                    "which --folds is to set. Leave --folds out."
                )


def _stages(request: Request, study: Study) -> Iterator[tuple[str, Plan, list[Stage]]]:
    """(network, its plan, the stages asked for)."""
    if request.is_comparison and study.compare:
        if request.net is not None:
            raise UsageError("--stage compare takes every network: leave --net out.")
        for net, stage in study.compare.items():
            yield net, study.plans[net], [study.plans[net].stage(stage)]
        return
    net = _net(request, study)
    plan = study.plans[net]
    names = [stage.name for stage in plan.stages]
    known = f"The stages of {net} in the study {study.name}: " + ", ".join(
        [*names, "all", *([COMPARE] if study.compare else [])]
    )
    if request.stage is None:
        raise UsageError(f"--stage is missing. {known}. --list describes them.")
    if request.stage not in [*names, "all"]:
        raise UsageError(f"--stage {request.stage} does not exist. {known}.")
    stages = [
        stage
        for stage in plan.stages
        if stage.name == request.stage or (request.stage == "all" and stage.in_chain)
    ]
    yield net, plan, stages


def _net(request: Request, study: Study) -> str:
    """The plan that --net names; the only one, also of the stage, needs no name."""
    plans, net = list(study.plans), request.net
    known = f"Networks of the study {study.name}: {', '.join(study.networks())}."
    if net in plans:
        return net
    if net is None:
        names = {
            net: [stage.name for stage in study.plans[net].stages] for net in plans
        }
        having = [net for net in plans if request.stage in names[net]]
        if "networks" in plans and request.stage in (None, "all"):
            having = ["networks"]
        if len(plans) == 1 or len(having) == 1:
            return (having or plans)[0]
        of = f"--stage {request.stage} is of {' and '.join(having)}. " if having else ""
        raise UsageError(f"--net is missing. {of}{known}")
    if net not in study.networks():
        raise UsageError(f"--net {net} is not in this study. {known}")
    if len(study.networks()) > 1:  # a plan that compares networks
        raise UsageError(
            f"--net {net} cannot be run alone: the stages of the study {study.name} "
            f"compare networks. Leave --net out. {known}"
        )
    return plans[0]


def _relevant(stages: list[Stage], prepared: Prepared) -> list[Stage]:
    """Of all stages those that ask about these data, where some ask about certain."""
    certain = [stage for stage in stages if prepared.dataset in stage.datasets]
    return certain and [s for s in stages if s in certain or not s.datasets] or stages


def data_facts(
    request: Request, study: Study, stage: Stage, prepared: Prepared | None
) -> DataFacts:
    """Of the data given; else with --plan of the document's, else of the synthetic."""
    if request.action != "run" and request.data is None:
        return study.facts(stage)
    if prepared is None:
        return DataFacts(SYNTHETIC_SIZE, CLIPS[0] * FRAMES)
    images = len(prepared.samples("train"))
    return DataFacts(prepared.image_size or (1, 1), images)


def check_requirements(
    request: Request, parts: Sequence[Part], prepared: Prepared | None = None
) -> None:
    """UsageError, before anything is made, for what is missing or cannot be read.

    TensorFlow, TensorBoard and Ray where they are asked for, pretrained weights, the
    output folder, the size and knobs that an arm's network would refuse; of a study of
    one's own, all that its stages declare.
    """
    place = request.out.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise UsageError(f"--out {request.out} is not a folder: {place} is a file.")
    training.check_installed(request.tensorboard)
    if request.executor == "ray":
        executors.require_ray()
    if request.weights not in (None, training.IMAGENET):
        training.sha256(Path(request.weights))
    documented = not request.vary and not request.study.endswith(".py")
    if documented and request.size is None and not request.settings:  # they fit
        return
    training.import_backend()  # as the networks would, but without its greetings
    for part in parts:
        for stage in part.stages:
            for arm in _arms(request, part, stage):
                training.check_size(arm.config)
                if arm.pretrained and request.vary and request.weights is not None:
                    training.weights_file(request.weights, arm.config.net.name)
            if not documented:  # a document's classes may lack in other data
                check_claims(stage, prepared)


def _arms(request: Request, part: Part, stage: Stage) -> Sequence[protocol.Arm]:
    """A stage's arms, checked; UsageError where the study cannot make them."""
    with blaming(f"The stage {stage.name} of {request.study} cannot make its arms"):
        arms = runner.planned_arms(part.plan, stage, part.base, request.winners)
    protocol.check_stage(part.plan, stage, arms)
    return arms


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Turn an error of a study's own code into a UsageError that names it."""
    try:
        yield
    except KerasSegError:
        raise
    except Exception as error:
        command_line.note(traceback.format_exc())
        raise UsageError(f"{what}: {type(error).__name__}: {error}.") from error


def check_claims(stage: Stage, prepared: Prepared | None) -> None:
    """UsageError where a claim is about a number that no report has."""
    classes = None if prepared is None else prepared.labels.names
    for claim in stage.claims:
        if not wording.is_metric(claim.metric, classes):
            known = [*wording.METRICS, *wording.COLUMNS]
            near = difflib.get_close_matches(claim.metric.lower(), known)
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise UsageError(
                f"The stage {stage.name}: the claim “{claim.text}” is about "
                f"{claim.metric!r}, which is no metric.{hint}"
            )


def check_own_size(
    request: Request, study: Study, parts: Sequence[Part], prepared: Prepared | None
) -> None:
    """UsageError where smaller images would pass for those of the document.

    At scale paper, on the document's data, a stage that is scored at the images' own
    size would be scored at the size they were prepared at.
    """
    if prepared is None or request.scale != "paper" or changes(request):
        return
    size = prepared.image_size
    for stage in (stage for part in parts for stage in part.stages):
        wanted = study.facts(stage).image_size
        is_asked = prepared.dataset in (stage.datasets or study.datasets)
        if not (stage.full_size and is_asked and size):
            continue
        if math.prod(size) < math.prod(wanted):
            raise UsageError(
                f"The images of --data {prepared.folder} have {wording.size(size)}. "
                f"The stage {stage.name} is scored at the images' own size, "
                f"{wording.size(wanted)} in the document. Prepare the data again "
                "without --size, or name another --scale."
            )


def make_synthetic_humans() -> Prepared:
    """Generate clips of synthetic people and prepare them as SURREAL's are."""
    from keras_seg.data import synthetic_humans, writer
    from keras_seg.synthetic.generate import Settings, generate

    workers = os.cpu_count() or 1
    frames = sum(CLIPS) * FRAMES
    with command_line.Progress("synthetic humans", frames, "frames") as progress:
        settings = Settings(seed=0, frames=FRAMES)
        generate(SYNTHETIC_RAW, CLIPS, settings, workers, progress.advance)
    options = writer.Options(workers=workers, command="ablations/run.py")
    return synthetic_humans.prepare(SYNTHETIC_RAW, SYNTHETIC, options)[0]


def seeds(request: Request, study: Study) -> int:
    """Runs per arm: as asked for, else as the study has at its scale."""
    if request.seeds is not None:
        return request.seeds
    return {"paper": study.seeds, "demo": study.demo_seeds}.get(request.scale, 1)


def make_execution(
    request: Request, study: Study, net: str, prepared: Prepared
) -> runner.Execution:
    jobs, threads, launch = request.jobs or 1, request.threads, executors.local
    if request.executor == "local" and (gpus := executors.gpus()):
        jobs, launch = request.jobs or len(gpus), executors.OnGpus(gpus)
        if jobs > len(gpus):
            command_line.note(f"{jobs} arms at a time share {len(gpus)} GPUs.")
    if request.executor == "ray":  # every arm gets the cores that are reserved for it
        threads = request.threads or os.cpu_count() or 1
        jobs, launch = request.jobs or MOST_JOBS, executors.Ray(threads)
    return runner.Execution(
        folder=request.out / study.name / net,
        prepared=prepared,
        seeds=seeds(request, study),
        jobs=jobs,
        threads=threads,
        isolate=request.scale != "smoke" or request.executor != "local" or jobs > 1,
        allow_inexact=request.allow_inexact,
        restart=request.restart,
        extend=request.extend,
        keeps_state=bool(request.vary),  # few arms, which may be trained on
        init_weights=request.weights,
        tensorboard=request.tensorboard,
        shard=request.shard,
        launch=launch,
    )


def share(request: Request, part: Part, execution: runner.Execution) -> StageResult:
    """Train the share of a stage that `--shard` names; nothing is reported yet."""
    (stage,) = part.stages  # `choose` sees to it
    found = runner.run_shard(part.plan, stage, part.base, execution, request.winners)
    number, count = request.shard or (1, 1)
    done = sum(result.state == "done" for result in found.results)
    command_line.note(
        f"share {number} of {count}: {done} of {len(found.results)} runs are done. "
        "After all shares, the same command without --shard writes the report."
    )
    return found


# What comes back


def compare(study: Study, results: Sequence[StageResult]) -> StageResult:
    """The networks' winners side by side, on the split of their last stages."""
    # Validation was at each network's own size, so it cannot choose among them.
    compared = [
        dataclasses.replace(
            result,
            arm=dataclasses.replace(result.arm, name=net, title=net),
            val_miou=math.nan,
        )
        for net, stage in zip(study.compare, results)
        for result in stage.of(stage.winner or "") or stage.results  # all failed
    ]
    stage = Stage(
        name=COMPARE,
        question="Which network is best on images that chose nothing?",
        source=study.compare_source,
        arms=lambda base: [result.arm for result in compared],
        split=results[0].stage.split,
        full_size=results[0].stage.full_size,
    )
    started = zip(study.compare, results)
    start = " ".join(f"{net}: {stage.start}" for net, stage in started)
    winner = protocol.choose_winner(compared)
    return StageResult(stage, tuple(compared), winner, start)


def write_report(
    request: Request,
    study: Study,
    execution: runner.Execution,
    results: Sequence[StageResult],
) -> Report:
    """report.html, report.md, figures and tables of all stages that have results."""
    facts = _context(request, study, execution, results)
    from keras_seg.report import page

    folder, title = execution.folder, study.title
    written = page.write(folder, title=title, stages=results, context=facts)
    answers = {
        stage: Answer(written.answers[stage], steps)
        for stage, steps in facts.next_steps.items()
    }
    return Report(written.path, answers, written.left_out)


def told(report: Report, asked: Sequence[StageResult]) -> list[Answer]:
    """The answers to what was asked; what a report lacks is said on the console."""
    for line in report.left_out:
        command_line.note(f"warning: {line}")
    names = {result.stage.name for result in asked}
    return [answer for stage, answer in report.answers.items() if stage in names]


def _context(
    request: Request,
    study: Study,
    execution: runner.Execution,
    results: Sequence[StageResult],
) -> "Context":
    """The context of a report on the results."""
    training.import_backend()
    from keras_seg.report import context

    prepared, is_own = execution.prepared, _is_own(request, results)
    facts = context.make(
        study,
        prepared,
        results,
        command=request.command,
        scale=request.scale,
        altered={
            stage.stage.name: differences(request, study, stage.stage, prepared)
            for stage in results
            if not is_own
        },
        is_own=is_own,
    )
    return dataclasses.replace(
        facts,
        next_steps={
            result.stage.name: list(next_steps(request, study, execution, result))
            for result in results
            if result.winner is not None
        },
    )


def _is_own(request: Request, results: Sequence[StageResult]) -> bool:
    """Whether it is a question of the user's, who has no document's numbers for it."""
    arms = [arm for result in results for arm in result.arms]
    is_file = request.study.endswith(".py")
    return bool(request.vary) or (is_file and not any(arm.published for arm in arms))


def next_steps(
    request: Request,
    study: Study,
    execution: runner.Execution,
    result: StageResult,
) -> Iterator[tuple[str, str]]:
    """Commands that go on from a stage's answer: (what for, the command)."""
    done = [run for run in result.of(result.winner or "") if run.state == "done"]
    if not done or not request.command.startswith(("python ", "keras-seg ")):
        return
    ablate = request.command.split(" --")[0].split()
    words = shlex.split(request.command)[len(ablate) :]
    is_script = ablate[0] == "python"

    def again(*changes: str) -> str:
        kept = _without(words, [word for word in changes if word.startswith("--")])
        return shlex.join([*ablate, *kept, *changes])

    run, stage_folder = done[0].run, execution.folder / result.stage.name

    def door(verb: str, *more: str) -> str:
        tool = ["python", f"tools/{verb}.py"] if is_script else ["keras-seg", verb]
        return shlex.join([*tool, *more])

    number = seeds(request, study)
    if number < ENOUGH_SEEDS:
        more = again("--seeds", str(number + 2))
        yield "more seeds: how much is chance?", more
    steps = result.arms[0].config.steps
    if request.vary:
        length = ("--epochs", 2 * request.epochs) if request.epochs else None
        name, value = length or ("--steps", 2 * steps)
        yield "train all arms twice as long", again(name, str(value), "--extend")
        images = len(execution.prepared.samples("val"))
        if request.folds is None and images < FEWEST_GROUPS:
            what = f"too few validation images, {images}: score the others as well"
            out = str(request.out / "folds")
            more = ("--folds", str(FOLDS), "--steps", str(steps), "--out", out)
            yield what, again(*more)
    later = _later_stage(request, study, result)
    if later is not None:
        yield "the next stage, from this winner", again("--stage", later)
    has_test = "test" in execution.prepared.splits and result.stage.split != "test"
    photo = ("photo.jpg", "--out", "predicted")
    if request.folds is not None:
        what = f"predict photographs with the winner's {request.folds} folds together"
        yield what, door("predict", str(stage_folder), *photo)
        data, out = str(execution.prepared.folder), str(execution.folder / "final")
        values = ["--config", str(run / "config.json"), "--set", "data.folds=null"]
        if done[0].arm.config.net.init_weights_sha256:
            values += ["--init-weights", str(request.weights)]
        what = "train the winner on the images as they were split"
        what += (
            f", to {'score it on the test images, or ' if has_test else ''}export it"
        )
        yield what, door("train", *values, "--data", data, "--out", out)
        return
    if has_test:
        what = "score the winner on the test images, which chose nothing"
        yield what, door("evaluate", str(run), "--split", "test", "--full-size")
    yield "predict photographs", door("predict", str(run), *photo)
    yield "a model that needs none of this code", door("export", str(run))


def _later_stage(request: Request, study: Study, result: StageResult) -> str | None:
    """The stage of a chain that follows one; None where it is the last."""
    if request.vary or request.is_comparison or request.stage == "all":
        return None
    for plan in study.plans.values():
        names = [stage.name for stage in plan.stages if stage.in_chain]
        if plan.chained and result.stage.name in names[:-1]:
            return names[names.index(result.stage.name) + 1]
    return None


FOLDS = 5  # suggested
LENGTHS = {"--steps", "--epochs", "--budget"}  # of which a command has one


def _without(words: Sequence[str], changed: Sequence[str]) -> list[str]:
    """The words of a command without the options that are given anew."""
    dropped = set(changed) | (LENGTHS if LENGTHS & set(changed) else set())
    dropped |= {"--restart"}
    kept: list[str] = []
    position = 0
    while position < len(words):
        name, equals, _ = words[position].partition("=")
        position += 1
        if name not in dropped:
            kept.append(words[position - 1])
        elif not equals and name not in ("--extend", "--restart"):
            position += 1  # its value
    return kept


def changes(request: Request) -> str:
    """The options that make the runs others than the document's; "" without any."""
    given = {"--size": request.size is not None, "--set": bool(request.settings)}
    return wording.joined(
        [name for name, is_given in given.items() if is_given] or [""]
    )


def differences(
    request: Request, study: Study, stage: Stage, prepared: Prepared
) -> str:
    """Why the document's numbers cannot stand beside a stage's, a clause; "" if not.

    Only of the document's data: other data are another matter.
    """
    if prepared.dataset not in (stage.datasets or study.datasets):
        return ""
    facts, found = study.facts(stage), []
    if options := changes(request):
        found.append(f"{options} changed the runs")
    classes = prepared.labels.num_classes
    if facts.classes not in (0, classes):
        found.append(f"the labels have {classes} classes instead of {facts.classes}")
    images, limit = (
        len(prepared.samples("train")),
        prepared.meta["request"].get("limit"),
    )
    if limit is not None or images < LEAST_SHARE * facts.train_images:
        found.append(
            f"{wording.whole(images)} images were trained on instead of "
            f"{wording.whole(facts.train_images)}"
        )
    size = prepared.image_size
    if stage.full_size and size != facts.image_size:
        shown = wording.size(size) if size else "several sizes"
        found.append(
            f"the scores are at {shown} instead of {wording.size(facts.image_size)}"
        )
    return wording.joined(found) if found else ""


def check_failures(results: Iterable[StageResult]) -> None:
    """Exit code 6 where an arm failed; the report is written all the same."""
    failed = [
        f"{result.arm.name} ({result.state})"
        for stage in results
        for result in stage.results
        if result.state != "done"
    ]
    if failed:
        raise ArmsFailedError(
            f"Not every arm finished: {', '.join(failed)}. The report says why; the "
            "same command tries them again."
        )


# What is printed


def data_header(prepared: Prepared) -> Iterator[str]:
    """What the data are, with warnings, before anything is trained on them."""
    yield f"data: {prepared.folder}"
    for line in summarise(prepared).text().splitlines():
        yield textwrap.fill(line, 78, initial_indent="  ", subsequent_indent="    ")


def header(
    request: Request,
    study: Study,
    part: Part,
    execution: runner.Execution,
    seconds: float,
) -> Iterator[str]:
    """What is about to run: question, arms, size, length, machine, time, folder.

    Beside `data_header`, which is said once for all parts.

    Args:
        seconds: that it should take, where that was measured; NaN: it is estimated.
    """
    prepared, runs, keys = execution.prepared, [], []
    for stage in part.stages:
        start, _ = runner.stage_start(
            part.plan, stage, part.base, execution, request.winners
        )
        arms = stage.arms(start)
        runs += [arm.config for arm in arms]
        starts = [arm.pretrained if request.weights else "" for arm in arms]
        keys += [(training_key(arm.config), one) for arm, one in zip(arms, starts)]
        yield f"{stage.question} {len(arms)} {'arms' if len(arms) > 1 else 'arm'}:"
        titles = ", ".join(arm.title for arm in arms)
        yield textwrap.fill(titles, 76, initial_indent="  ", subsequent_indent="  ")
    images = {split: len(prepared.samples(split)) for split in ("train", "val")}
    lengths = sorted({(run.steps, _epochs(run, images["train"])) for run in runs})
    shown = [f"{steps} steps ({epochs:.3g} epochs)" for steps, epochs in lengths]
    sizes = sorted({run.data.size for run in runs})
    yield (
        f"  {' and '.join(f'{h} x {w} px' for h, w in sizes)}, "
        f"{shown[0] if len(shown) == 1 else f'{shown[0]} to {shown[-1]}'}, "
        f"{wording.count(seeds(request, study), 'seed')}"
    )
    if request.folds is not None:
        yield (
            f"  {sum(images.values())} images in {request.folds} folds, each scored "
            f"by a training without it, of about {images['train']}"
        )
    runs = list(dict(zip(keys, runs)).values())  # the others follow
    each = seeds(request, study) * (request.folds or 1)
    if math.isnan(seconds):
        costs, speed = estimate.read_costs(COSTS), estimate.machine_speed()
        seconds = each * sum(
            estimate.seconds(run, images["val"], costs, speed) for run in runs
        )
    time = "" if math.isnan(seconds) else f": about {command_line.duration(seconds)}"
    trainings = wording.count(each * len(runs), "training")
    yield f"  {trainings} on {device()}{time}"
    yield f"  {execution.folder}: report.html from the first finished arm on"


def _epochs(config, images: int) -> float:
    images = config.data.used(images)
    return config.steps * config.optimizer.accumulate * config.data.batch / images


def device() -> str:
    """The processor and its cores; graphics cards are found by the arms."""
    name = training.processor().partition(" (")[0] or "this machine"
    return f"{name}, {wording.count(os.cpu_count() or 1, 'core')}"


def best_so_far(found: Sequence[StageResult], report: Path) -> str:
    """While runs of a stage are missing: its best arm; "" at its end."""
    for stage in found:
        done = [run for run in stage.results if run.state == "done"]
        waiting = [run for run in stage.results if run.state == "missing"]
        if done and waiting and stage.winner:
            best = [run for run in done if run.arm.name == stage.winner]
            miou = 100 * sum(run.miou for run in best) / len(best)
            title, over = best[0].arm.title, wording.mean_over(best)
            return (
                f"best so far: {title}, mIoU {miou:.2f} %{over and f' {over}'} "
                f"({len(done)} of {len(stage.results)} runs): {report}"
            )
    return ""


def running(request: Request) -> Iterator[str]:
    """Run it: the stages' arms with their mIoU and accuracy, the winner marked."""
    outcome = run(request)
    for stage in outcome.results:
        folds = f" ({request.folds} folds, out of fold)" if request.folds else ""
        yield f"{stage.stage.name}: {stage.stage.question}{folds}"
        yield f"  {'arm':24s} {'seed':>4s} {'mIoU':>7s} {'accuracy':>9s}"
        for result in stage.results:
            line = f"  {result.arm.name:24s} {result.seed:4d}"
            if result.metrics is None:
                yield f"{line} {': '.join(filter(None, (result.state, result.reason)))}"
                continue
            scores = result.metrics["summary"]
            line += f" {scores['miou']:7.4f} {scores['pixel_accuracy']:9.4f}"
            over = wording.mean_over([result])
            mark = "<- winner" if result.arm.name == stage.winner else ""
            yield "  ".join(filter(None, [line, over and f"mIoU {over}", mark]))
    for answer in outcome.answers:
        yield ""
        yield from textwrap.wrap(answer.verdict, 79)
        yield ""
        for what, command in answer.next_steps:
            yield from (f"# {what}", command)
    if outcome.report.name:  # not of a share
        yield f"report: {outcome.report}"
    check_failures(outcome.results)


def planning(request: Request) -> Iterator[str]:
    """Every arm that would be run, with its settings.

    With ``request.json``, all settings of each as a line of JSON; else what all arms
    of a stage have in common once, without what is a default, then how they differ.
    """
    study, prepared = find(request)
    for part in choose(request, study, prepared):
        for stage in part.stages:
            config, start = runner.stage_start(
                part.plan, stage, part.base, winners=request.winners
            )
            arms = stage.arms(config)
            needs = [f"{arm.name} ({arm.pretrained})" for arm in arms if arm.pretrained]
            only = ""
            if needs and request.weights is None:
                only = f" Only with --init-weights: {', '.join(needs)}."
            elif needs and request.json:  # lines of settings do not tell
                only = f" From weights: {', '.join(needs)}."
            yield f"{part.net} {stage.name}: {start}{only}{_trainings(request, arms)}"
            yield from (plans.json_lines if request.json else plans.lines)(arms)


def _trainings(request: Request, arms: Sequence[protocol.Arm]) -> str:
    """With folds, how many trainings of one seed there are."""
    if request.folds is None:
        return ""
    number = wording.count(request.folds * len(arms), "training")
    return f" {request.folds} folds: {number} per seed."


def listing(request: Request) -> Iterator[str]:
    """Studies, networks, stages with their time here, arms with a published score."""
    costs, speed = estimate.read_costs(COSTS), estimate.machine_speed()
    prepared = open_prepared(request.data) if request.data else None
    on = f"on {prepared.dataset}, " if prepared else ""
    many = wording.count(request.seeds or 1, "seed")
    if request.seeds is None and request.scale in ("paper", "demo"):
        many = "the studies' seeds"
    runs = f"{on}{many}, one run at a time"
    yield f"Times: roughly, at scale {request.scale}, {runs}, here and now."
    own = request.study.endswith(".py")
    if not own and not names():
        yield "The studies of the documents are in a checkout of the project."
    for study in map(load, [request.study] if own else names()):
        yield f"--study {request.study if own else study.name}: {study.title}"
        images = validation_images(request, study, prepared)
        for net, plan in study.plans.items():
            named = f"--net {net} " if len(study.plans) > 1 else ""
            for stage in plan.stages:
                facts = data_facts(request, study, stage, prepared)
                base = plan.base(request.scale, facts)
                arms = runner.planned_arms(plan, stage, base)
                each = seeds(request, study) * (request.folds or 1)
                time = each * sum(
                    estimate.seconds(arm.config, images, costs, speed) for arm in arms
                )
                title = f"  {named}--stage {stage.name}: {stage.question}"
                yield f"{title} (about {command_line.duration(time)})"
                for arm in arms:
                    weights = f"  [{arm.pretrained}]" if arm.pretrained else ""
                    yield f"      {arm.name}: {arm.title}{published(arm)}{weights}"
        if study.compare:
            yield f"  --stage {COMPARE}: {', '.join(study.compare)}"


def published(arm: protocol.Arm) -> str:
    """The document's numbers of an arm, but for those of single classes."""
    numbers = [
        f"{wording.metric(key)} {value:g} %"
        for key, value in arm.published.items()
        if key in wording.METRICS | wording.PUBLISHED
    ]
    return f"  (published {', '.join(numbers)})" if numbers else ""


def validation_images(request: Request, study: Study, prepared: Prepared | None) -> int:
    """Of the data given; else at scale paper of the document's, else the synthetic."""
    if prepared is not None:
        return len(prepared.samples("val"))
    if request.scale == "paper" or not study.synthetic:
        return study.data.train_images // VALIDATION_SHARE
    return CLIPS[1] * FRAMES


ACTIONS = {"run": running, "plan": planning, "list": listing}
