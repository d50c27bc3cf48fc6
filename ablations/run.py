"""Run a stage of a study: train its arms, choose a winner, write the report.

python ablations/run.py --net icnet --stage weighting
python ablations/run.py --net icnet --stage all --data datasets/prepared/camvid

The same command goes on where an interrupted one stopped and skips what is done.
"""

import dataclasses
import json
import math
import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

from keras_seg import backend, command_line, storage
from keras_seg.ablation import estimate, executors, protocol, runner
from keras_seg.config import to_dict
from keras_seg.data.prepared import open_prepared
from keras_seg.errors import ArmsFailedError, UsageError
from keras_seg.nets import get, refuse_size
from keras_seg.report import wording
from keras_seg.runs import event_log
from keras_seg.runs import folder as run_folder
from keras_seg.runs import train as training
from keras_seg.runs.export import RECORD, read_record

HERE = Path(__file__).resolve().parent
STUDIES = HERE / "studies"
COSTS = HERE / "costs.csv"  # of python tools/summary.py --costs
DEFAULT_DATA = HERE.parent / "datasets" / "prepared" / "synthetic_humans"
RAW_DATA = HERE.parent / "datasets" / "raw" / "synthetic_humans"
# The embedded data: many people with few frames each generalise better than few
# people with many. Train, validation and test clips.
EMBEDDED_CLIPS = (400, 60, 60)
EMBEDDED_FRAMES = 4
EMBEDDED_SIZE = (320, 320)
EXAMPLES = 4  # images in the report's pictures of the data
VALIDATION_SHARE = 6  # training images for one of validation; BODY 2.2
MOST_JOBS = 64  # tasks given to a cluster at once; it queues what does not fit


def main(argv: list[str]) -> int:
    args = parse(argv)
    if args.list:
        print_studies(args)
        return 0
    study = load_study(args.study)
    if args.net is not None and args.net not in study.plans:
        get(args.net)
    plans = chosen_plans(study, args)
    check_out(args.out)
    prepared = open_data(args)
    if args.stage == "all" and prepared is not None:
        plans = [(net, plan, about(stages, prepared)) for net, plan, stages in plans]
    bases = {
        net: base_of(plan, args, facts_of(args, study, prepared))
        for net, plan, _ in plans
    }
    for net, plan, stages in plans:
        runner.refuse_unknown_winner(plan, stages, bases[net], args.winner)
    if args.plan:
        for net, plan, stages in plans:
            print_plan(net, plan, stages, bases[net], args.winner)
        return 0
    require_what_is_asked(args)
    refuse_sizes(args, plans, bases)
    if prepared is None:
        make_embedded_data()
        prepared = open_prepared(DEFAULT_DATA)
    results = []
    for net, plan, stages in plans:
        execution = execution_of(args, study, net, prepared)
        results += carry_out(study, net, plan, stages, bases[net], execution, args)
    if is_comparison(study, args):
        results = [compare(study, results, args, prepared)]
    for stage in results:
        print_table(stage)
    folder = "compare" if is_comparison(study, args) else plans[0][0]
    print(f"report: {args.out / study.name / folder / 'report.html'}")
    refuse_failures(results)
    return 0


def parse(argv: list[str]):
    positive = command_line.positive_int
    parser = command_line.Parser(prog="run.py", description=__doc__)
    parser.add_argument("--net", help="which network; see --list")
    parser.add_argument("--stage", help="which stage, or all; see --list")
    parser.add_argument("--study", default="body_parts", help="default: body_parts")
    parser.add_argument(
        "--data", type=Path, help="prepared folder; default: synthetic humans"
    )
    parser.add_argument(
        "--scale",
        choices=protocol.SCALES,
        default="demo",
        help="how large and long: a test, minutes, an afternoon, the document's",
    )
    parser.add_argument(
        "--size", nargs=2, type=positive, metavar=("H", "W"), help="of the images"
    )
    parser.add_argument(
        "--seeds", type=positive, default=1, metavar="K", help="runs per arm"
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        metavar="N",
        help="arms at the same time; default: 1, with ray as many as fit",
    )
    parser.add_argument(
        "--executor",
        choices=executors.EXECUTORS,
        default="local",
        help="where arms are run: here, or on the Ray cluster of RAY_ADDRESS",
    )
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="of each arm; default: the cores"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="default: runs")
    parser.add_argument(
        "--init-weights",
        type=Path,
        metavar="FILE",
        help="for the arms that begin from pretrained weights; see --list",
    )
    parser.add_argument(
        "--winner",
        metavar="[STAGE/]ARM",
        help="start from this arm of an earlier stage",
    )
    parser.add_argument(
        "--restart", action="store_true", help="train every arm of the stage anew"
    )
    parser.add_argument(
        "--allow-inexact",
        action="store_true",
        help="go on with a run although the machine or a library changed",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="let every run keep a log for TensorBoard as well",
    )
    parser.add_argument("--list", action="store_true", help="show studies and stages")
    parser.add_argument(
        "--plan", action="store_true", help="show the arms and settings; run nothing"
    )
    args = parser.parse_args(argv)
    if args.stage is None and not args.list:
        raise UsageError("--stage", "missing", "a stage; --list shows them")
    return args


def load_study(name: str) -> protocol.Study:
    known = sorted(path.stem for path in STUDIES.glob("*.py"))
    if name not in known:
        raise UsageError("study", name, "one of " + ", ".join(known))
    return runpy.run_path(str(STUDIES / f"{name}.py"))["STUDY"]


def is_comparison(study: protocol.Study, args) -> bool:
    return args.stage == "compare" and bool(study.compare)


def chosen_plans(study: protocol.Study, args) -> list[tuple]:
    """(network, its plan, the stages asked for); several only for --stage compare."""
    if not is_comparison(study, args):
        net, plan = study.plan(args.net)
        return [(net, plan, chosen_stages(plan, args.stage))]
    if args.net is not None:
        raise UsageError("--net", args.net, "none: --stage compare takes every network")
    return [
        (net, study.plans[net], [study.plans[net].stage(stage)])
        for net, stage in study.compare.items()
    ]


def chosen_stages(plan: protocol.Plan, name: str) -> list[protocol.Stage]:
    if name == "all":
        return [stage for stage in plan.stages if stage.in_chain]
    return [plan.stage(name)]


def about(stages: list[protocol.Stage], prepared) -> list[protocol.Stage]:
    """Of all stages those that ask about these data, where some ask about certain."""
    certain = [stage for stage in stages if prepared.dataset in stage.datasets]
    return certain and [s for s in stages if s in certain or not s.datasets] or stages


def require_what_is_asked(args) -> None:
    """UsageError, before anything is made, for what is not installed or cannot be read.

    TensorFlow, TensorBoard and Ray where they are asked for, pretrained weights.
    """
    backend.require_installed()
    if args.tensorboard:
        event_log.require_installed()
    if args.executor == "ray":
        executors.require_ray()
    if args.init_weights is not None:
        training.sha256(args.init_weights)


def refuse_sizes(args, plans, bases) -> None:
    """UsageError where an arm's network cannot take the size given with --size.

    With knobs, asking imports Keras; the studies' own sizes are known to fit.
    """
    if args.size is None:
        return
    backend.configure()
    for net, plan, stages in plans:
        for stage in stages:
            for arm in runner.planned_arms(plan, stage, bases[net], args.winner):
                if not arm.config.data.pad:
                    refuse_size(
                        arm.config.net.name,
                        arm.config.data.size,
                        **arm.config.net.knobs,
                    )


def open_data(args):
    """The prepared folder; None where the embedded data are still to be made."""
    if args.data is None and not DEFAULT_DATA.is_dir():
        return None
    return open_prepared(args.data or DEFAULT_DATA)


def facts_of(args, study: protocol.Study, prepared) -> protocol.DataFacts:
    """Of the data given; else with --plan of the document's, else of the embedded."""
    if args.plan and args.data is None:
        return study.data
    if prepared is None:
        images = EMBEDDED_CLIPS[0] * EMBEDDED_FRAMES
        return protocol.DataFacts(EMBEDDED_SIZE, images)
    images = len(prepared.samples("train"))
    return protocol.DataFacts(prepared.image_size or (1, 1), images)


def base_of(plan: protocol.Plan, args, facts: protocol.DataFacts):
    """The configuration of the first stage's base."""
    base = plan.base(args.scale, facts)
    if args.size is not None:
        base = base.changed(data={"size": tuple(args.size)})
    if not base.data.pad:
        refuse_size(base.net.name, base.data.size)
    return base


def execution_of(args, study: protocol.Study, net: str, prepared) -> runner.Execution:
    jobs, threads, launch = args.jobs or 1, args.threads, executors.local
    if args.executor == "ray":  # every arm gets the cores that are reserved for it
        threads = args.threads or os.cpu_count() or 1
        jobs, launch = args.jobs or MOST_JOBS, executors.Ray(threads)
    return runner.Execution(
        folder=args.out / study.name / net,
        prepared=prepared,
        seeds=args.seeds,
        jobs=jobs,
        threads=threads,
        isolate=args.scale != "smoke" or args.executor != "local",
        allow_inexact=args.allow_inexact,
        restart=args.restart,
        init_weights=args.init_weights,
        tensorboard=args.tensorboard,
        launch=launch,
    )


def carry_out(study, net, plan, stages, base, execution, args) -> list:
    """Run the stages of one network and write its report; export what is final."""

    written = []

    def write_report(results):
        written[:] = results
        write(study, net, args, execution, results)

    with storage.lock(execution.folder):
        storage.sweep(execution.folder)
        results = runner.run_stages(
            plan, stages, base, execution, args.winner, write_report
        )
        for stage in results:
            if stage.stage.exports and stage.winner is not None:
                export_winner(stage, execution)
                write_report(list(written))  # which names the export
    return results


def export_winner(stage: protocol.StageResult, execution: runner.Execution) -> None:
    """A SavedModel of the winner's first seed, in its run folder (tools/export.py)."""
    run = next(r.run for r in stage.of(stage.winner) if r.state == "done")
    if is_exported(run):
        return
    command = [sys.executable, str(HERE.parent / "tools" / "export.py"), str(run)]
    command += ["--format", "saved_model", "--data", str(execution.prepared.folder)]
    exit_code = subprocess.run(command).returncode
    if exit_code:  # it said why, in a line of its own
        sys.exit(exit_code)


def is_exported(run: Path) -> bool:
    """Whether the run's export holds the weights that were scored."""
    folder = run / "export" / "saved_model"
    if not (folder / RECORD).is_file():
        return False
    record, metrics = read_record(folder), run_folder.read_metrics(run)
    return run_folder.same(run, record["run"]) and record["step"] == metrics["step"]


def compare(study, results, args, prepared) -> protocol.StageResult:
    """The networks' winners side by side, on the split of their last stages."""
    # Validation was at each network's own size, so it cannot choose among them.
    compared = [
        dataclasses.replace(
            result,
            arm=dataclasses.replace(result.arm, name=net, title=net),
            val_miou=math.nan,
        )
        for net, stage in zip(study.compare, results)
        for result in stage.of(stage.winner) or stage.results  # all of them failed
    ]
    stage = protocol.Stage(
        name="compare",
        question="Which network is best on images that chose nothing?",
        source=study.compare_source,
        arms=lambda base: [result.arm for result in compared],
        split=results[0].stage.split,
        full_size=results[0].stage.full_size,
    )
    started = zip(study.compare, results)
    start = " ".join(f"{net}: {stage.start}" for net, stage in started)
    winner = protocol.choose_winner(compared)
    found = protocol.StageResult(stage, tuple(compared), winner, start)
    execution = execution_of(args, study, "compare", prepared)
    execution.folder.mkdir(parents=True, exist_ok=True)
    with storage.lock(execution.folder):
        write(study, "compare", args, execution, [found])
    return found


def make_embedded_data() -> None:
    """Generate clips of synthetic people and prepare them as SURREAL's are."""
    from keras_seg.data import synthetic_humans, writer
    from keras_seg.synthetic.generate import Settings, generate

    workers = os.cpu_count() or 1
    frames = sum(EMBEDDED_CLIPS) * EMBEDDED_FRAMES
    with command_line.Progress("synthetic humans", frames, "frames") as progress:
        settings = Settings(seed=0, frames=EMBEDDED_FRAMES)
        generate(RAW_DATA, EMBEDDED_CLIPS, settings, workers, progress.advance)
    options = writer.Options(workers=workers, command="ablations/run.py")
    synthetic_humans.prepare(RAW_DATA, DEFAULT_DATA, options)


def check_out(out: Path) -> None:
    """UsageError where a file is in the way of the output folder."""
    place = out.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise UsageError("--out", out, f"a folder, but {place} is a file")


def write(study, net, args, execution, results) -> None:
    """report.html, report.md, figures and tables of all stages that have results."""
    backend.configure()
    from keras_seg.report import page as report

    prepared = execution.prepared
    context = report.Context(
        command=shlex.join(["python", "ablations/run.py", *sys.argv[1:]]),
        scale=args.scale,
        study=study.name,
        dataset=prepared.dataset,
        labels=prepared.labels,
        train_pixels=prepared.counts("train").pixels,
        environment=environment(results),
        datasets=study.datasets,
        groups=study.groups.get(prepared.dataset, {}),
        weights=weights_of(prepared, results),
        sequences={split: prepared.sequences(split) for split in prepared.splits},
        examples=examples(prepared, results),
    )
    report.write(execution.folder, title=study.title, stages=results, context=context)


def weights_of(prepared, results) -> dict:
    """{name: [C]} of every class weighting of the arms, as the report draws them."""
    from keras_seg.runs import evaluate as evaluation

    configs = [result.arm.config for stage in results for result in stage.results]
    return {
        wording.weighting(config): evaluation.weights_of(config, prepared)
        for config in sorted(configs, key=wording.weighting)
        if config.loss.weights != "none"
    }


def examples(prepared, results) -> list:
    """A few validation images, evenly spread, for stages with pictures of the data."""
    sizes = [
        r.arm.config.data.size for s in results if s.stage.sheets for r in s.results
    ]
    if not sizes:
        return []
    from keras_seg.data import pipeline
    from keras_seg.report.sheets import Example
    from keras_seg.runs import evaluate as evaluation

    samples = pipeline.Samples(prepared, "val", prepared.image_size or sizes[0])
    chosen = evaluation.spread(len(samples), EXAMPLES)
    return [Example(samples.ids[k], *samples.plain(k)) for k in chosen]


def environment(results) -> dict:
    """Versions and machine as the first run that was begun wrote them; the commits."""
    found = [
        run_folder.read_environment(result.run)
        for stage in results
        for result in stage.results
        if (result.run / "environment.json").is_file()
    ]
    if not found:
        return {}
    commits = dict.fromkeys(one["commit"] or "not known" for one in found)
    return found[0]["fingerprint"] | {
        "commit": ", ".join(commits),
        "commit of this report": backend.commit(),
    }


def refuse_failures(results) -> None:
    """Exit code 6 where an arm failed; the report is written all the same."""
    failed = [
        f"{result.arm.name} ({result.state})"
        for stage in results
        for result in stage.results
        if result.state != "done"
    ]
    if failed:
        raise ArmsFailedError("arms", ", ".join(failed), "every arm done; see report")


def print_table(stage: protocol.StageResult) -> None:
    """The stage's arms with their mIoU and accuracy, the winner marked."""
    print(f"{stage.stage.name}: {stage.stage.question}")
    print(f"  {'arm':24s} {'seed':>4s} {'mIoU':>7s} {'accuracy':>9s}")
    for result in stage.results:
        line = f"  {result.arm.name:24s} {result.seed:4d}"
        if result.metrics is None:
            print(f"{line} {': '.join(filter(None, (result.state, result.reason)))}")
            continue
        summary = result.metrics["summary"]
        mark = "  <- winner" if result.arm.name == stage.winner else ""
        print(f"{line} {summary['miou']:7.4f} {summary['pixel_accuracy']:9.4f}{mark}")


def print_studies(args) -> None:
    """Studies, networks, stages with their time here, arms with a published score."""
    costs, speed = estimate.read_costs(COSTS), estimate.machine_speed()
    prepared = open_prepared(args.data) if args.data else None
    on = f"on {prepared.dataset}, " if prepared else ""
    runs = f"{on}{wording.count(args.seeds, 'seed')}, one run at a time"
    print(f"Times: roughly, at scale {args.scale}, {runs}, here and now.")
    for path in sorted(STUDIES.glob("*.py")):
        study = load_study(path.stem)
        print(f"--study {study.name}: {study.title}")
        for net, plan in study.plans.items():
            named = f"--net {net} " if len(study.plans) > 1 else ""
            facts = facts_of(args, study, prepared) if prepared else study.data
            images = validation_images(args, study, prepared)
            base = plan.base(args.scale, facts)
            for stage in plan.stages:
                arms = runner.planned_arms(plan, stage, base)
                time = args.seeds * sum(
                    estimate.seconds(arm.config, images, costs, speed) for arm in arms
                )
                title = f"  {named}--stage {stage.name}: {stage.question}"
                print(f"{title} (about {command_line.duration(time)})")
                for arm in arms:
                    weights = f"  [{arm.pretrained}]" if arm.pretrained else ""
                    print(f"      {arm.name}: {arm.title}{published(arm)}{weights}")
        if study.compare:
            print("  --stage compare: " + ", ".join(study.compare))


def published(arm: protocol.Arm) -> str:
    """The document's numbers of an arm, but for those of single classes."""
    numbers = [
        f"{wording.metric(key)} {value:g} %"
        for key, value in arm.published.items()
        if key in wording.METRICS | wording.PUBLISHED
    ]
    return f"  (published {', '.join(numbers)})" if numbers else ""


def validation_images(args, study: protocol.Study, prepared) -> int:
    """Of the data given; else at scale paper of the document's, else the embedded."""
    if prepared is not None:
        return len(prepared.samples("val"))
    if args.scale == "paper":
        return study.data.train_images // VALIDATION_SHARE
    return EMBEDDED_CLIPS[1] * EMBEDDED_FRAMES


def print_plan(net: str, plan: protocol.Plan, stages, base, winner) -> None:
    """Every arm that would be run, with all its settings, as JSON lines."""
    for stage in stages:
        config, start = runner.stage_start(plan, stage, base, None, winner)
        arms = stage.arms(config)
        needs = [f"{arm.name} ({arm.pretrained})" for arm in arms if arm.pretrained]
        only = f" Only with --init-weights: {', '.join(needs)}." if needs else ""
        print(f"{net} {stage.name}: {start}{only}")
        for arm in arms:
            print(f"  {arm.name}: {json.dumps(to_dict(arm.config))}")


if __name__ == "__main__":
    sys.exit(command_line.run(main))
