"""Check and measure this code on a machine with a GPU, JAX, PyTorch and OpenCV.

    KERAS_BACKEND=jax python tools/gpu_check.py --out FOLDER --budget 480

Sections, each a process of its own, in groups that run side by side while the budget
lasts:

runs           tools/train.py at the thesis' size, twice, and once killed and resumed;
               the weights, the history and the scores have to be equal to the bit
logits         of every network of the thesis, on the GPU and on the CPU
loader         images a second from memory, with mirroring and scaling, by threads
icnet, segnet_basic, hourglass
               a training step and a prediction at the thesis' size, in bfloat16 and
               float32, in turns with a PyTorch twin in bfloat16 (channels_last,
               compiled)
settings       what determinism costs: ICNet's step under other flags of XLA

Networks compile side by side; only one measures at a time. FOLDER gets gpu_check.md and
gpu_check.json, written anew after every section, and a log of each; what other calls
left there of other sections is kept. A section that fails or takes too long is named,
and the others are done. The thesis' sizes need 70 GB on the GPU; `--small` rehearses
all of it on a CPU in minutes.
"""

import argparse
import fcntl
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("KERAS_BACKEND", "jax")

from keras_seg import backend, command_line, storage  # noqa: E402
from keras_seg.errors import UsageError  # noqa: E402
from keras_seg.runs.benchmark import patches  # noqa: E402

CLASSES = 25
NETS = ("icnet", "segnet_basic", "hourglass")
PRECISIONS = {"bfloat16": "mixed_bfloat16", "float32": "float32"}
CHAIN = 7 * 40_000  # steps of the thesis' chain of ICNet
GROUPS = (("runs", "logits"), ("loader",), ("icnet", "segnet_basic"))
GROUPS += (("hourglass", "settings"),)
SECONDS = {"loader": 60}  # at most; of the others
OTHER_SECONDS = 270


def main(argv: list[str]) -> int:
    args = parse(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.section:
        found = SECTIONS[args.section](args)
        storage.write_json(args.out / f"{args.section}.json", found)
        return 0
    deadline = time.monotonic() + args.budget
    place = args.out / "gpu_check.json"
    report = storage.read_json(place) if place.is_file() else {}
    for name in ("machine", "sections"):
        report.setdefault(name, {})
    if report.setdefault("is_rehearsal", args.small) != args.small:
        how = "without" if args.small else "with"
        raise UsageError(f"{args.out} was made {how} --small. Name another --out.")
    report["command"] = shlex.join(argv)
    lock = threading.Lock()

    def run(name: str) -> None:
        began = time.monotonic()
        state = run_section(name, args, deadline)
        seconds = round(time.monotonic() - began, 1)
        with lock:
            keep(args.out, report, name, state, seconds)
            print(f"{name:14s} {seconds:6.1f} s  {state}", flush=True)

    asked = args.only or SECTIONS
    for group in GROUPS:
        threads = [threading.Thread(target=run, args=(n,)) for n in group if n in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print((args.out / "gpu_check.md").read_text())
    states = {report["sections"][name]["state"] for name in asked}
    return 0 if states == {"done"} else 1


def keep(out: Path, report: dict, name: str, state: str, seconds: float) -> None:
    """Put what a section left into the report, and write it."""
    place = out / f"{name}.json"
    found = storage.read_json(place) if place.is_file() else {}
    report["machine"] |= found.pop("machine", {})
    report["sections"][name] = {"state": state, "seconds": seconds, **found}
    storage.write_json(out / "gpu_check.json", report)
    (out / "gpu_check.md").write_text(markdown(report))


@contextmanager
def device(out: Path) -> Iterator[None]:
    """Hold the GPU for a measurement: the other processes wait or compile."""
    with open(out / "device.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def parse(argv: list[str]) -> argparse.Namespace:
    positive = command_line.positive_int
    parser = command_line.Parser(prog="gpu_check.py", description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder of the results")
    parser.add_argument("--budget", type=positive, default=480, help="seconds")
    parser.add_argument("--only", nargs="+", choices=SECTIONS)
    parser.add_argument("--steps", type=positive, default=30, help="steps of a turn")
    parser.add_argument("--turns", type=positive, default=3)
    parser.add_argument("--workers", type=positive, default=max(1, cores() - 2))
    parser.add_argument("--small", action="store_true", help="a rehearsal on a CPU")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def cores() -> int:
    return os.cpu_count() or 1


def run_section(name: str, args: argparse.Namespace, deadline: float) -> str:
    """Run a section in a process; how it ended."""
    most = SECONDS.get(name, OTHER_SECONDS) * (20 if args.small else 1)
    seconds = min(most, deadline - time.monotonic())
    (args.out / f"{name}.json").unlink(missing_ok=True)
    if seconds < 5:
        return "left out: the budget is used up"
    words = [sys.executable, __file__, "--section", name, "--out", args.out]
    words += ["--steps", args.steps, "--turns", args.turns, "--workers", args.workers]
    words += ["--small"] if args.small else []
    with open(args.out / f"{name}.log", "w") as log:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # what it starts ends with it
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"stopped after {seconds:.0f} s"
    return "done" if code == 0 else f"failed with exit code {code}: see {name}.log"


# What is measured: the networks of the thesis at its size


def configuration(name: str, precision: str, small: bool, **changes: Any) -> Any:
    """Settings of `ablations/studies/body_parts.py` at scale paper."""
    from keras_seg.config import Augment, Config

    size, batch, knobs = {
        "icnet": ((320, 320), 64, {}),
        "segnet_basic": ((320, 320), 32, {}),
        "hourglass": ((320, 320), 4, {}),
    }[name]
    if small:
        size, batch = (64, 64), 2
        if name == "hourglass":
            knobs = {"features": 16, "stem": 8, "stacks": 2, "depth": 2}
    config = Config(
        net={"name": name, "knobs": knobs},
        data={"size": size, "batch": batch},
        augment=Augment(mirror=0.5, scale=(0.5, 2.0)),
        optimizer={"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4},
        validation={"every": 2 if small else 100, "batch": batch},
        precision=PRECISIONS[precision],
        steps=6 if small else 300,
    )
    return config.changed(**changes)


def main_net(args: argparse.Namespace) -> str:
    """The network of most measurements; a rehearsal takes what compiles fast."""
    return "hourglass" if args.small else "icnet"


def machine() -> dict[str, str]:
    import jax  # pyright: ignore
    import torch

    found = {key: str(value) for key, value in backend.fingerprint().items()}
    found["cores"] = str(cores())
    found["torch"] = torch.__version__
    found["gpu"] = jax.devices()[0].device_kind
    return found


# Runs


def runs(args: argparse.Namespace) -> dict[str, Any]:
    """Two runs and a resumed one, through the command line; speed with the loader."""
    config = configuration(main_net(args), "bfloat16", args.small)
    data = args.out / "data"
    if not data.is_dir():
        count = 16 if args.small else 400
        patches.patches(data, config.data.size, count, CLASSES)
    folder = args.out / "runs"
    shutil.rmtree(folder, ignore_errors=True)
    # What one run compiled, the run for the speed reads: it starts in no time
    cache = {"JAX_COMPILATION_CACHE_DIR": str(args.out / "compiled")}
    processes = {
        "first": train(config, data, folder / "first", args, cache),
        "killed": train(config, data, folder / "killed", args),
    }
    wait_for_checkpoint(folder / "killed" / "checkpoints", processes["killed"])
    processes["killed"].kill()
    processes["killed"].wait()
    processes["resumed"] = train(config, data, folder / "killed", args)
    codes = [processes[name].wait() for name in ("first", "resumed")]
    began = time.monotonic()
    codes.append(train(config, data, folder / "again", args, cache).wait())
    seconds = time.monotonic() - began
    if any(codes):
        raise RuntimeError(f"exit codes {codes}")
    from keras_seg.runs import folder as run_folder

    timing = run_folder.read_timing(folder / "again")
    found: dict[str, Any] = {
        "machine": machine(),
        "images_per_second": timing["images_per_second"],
        "batch": config.data.batch,
        "steps": config.steps,
        "train_seconds": timing["train_seconds"],
        "seconds from start to end": seconds,
        "ms_per_image": timing["ms_per_image"],
    }
    for name, what in (("killed", "killed and resumed"), ("again", "run again")):
        found[what] = compared(folder / "first", folder / name)
    return found


def compared(one: Path, other: Path) -> str:
    """Whether two runs have the same weights, history and scores."""
    import numpy as np

    from keras_seg.runs import folder as run_folder

    first, second = (run_folder.load_best(run)[0] for run in (one, other))
    differing = [
        name for name in first if not np.array_equal(first[name], second[name])
    ]
    for file in ("history.csv", "metrics.json"):
        if (one / file).read_bytes() != (other / file).read_bytes():
            differing.append(file)
    return f"differs in {differing[:3]}" if differing else "equal to the bit"


def train(
    config: Any,
    data: Path,
    out: Path,
    args: argparse.Namespace,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen:
    from keras_seg.config import to_dict

    out.parent.mkdir(exist_ok=True)
    settings = out.with_suffix(".json")
    storage.write_json(settings, to_dict(config))
    words = [sys.executable, ROOT / "tools" / "train.py", "--config", settings]
    words += ["--data", data, "--out", out, "--workers", args.workers]
    words += ["--checkpoint-every", config.steps // 4 + 1]
    if args.small:  # a rehearsal on a CPU, where bfloat16 may be slow
        words.append("--allow-inexact")
    variables = os.environ | dict(environment or {})
    return subprocess.Popen([str(word) for word in words], env=variables)


def wait_for_checkpoint(folder: Path, process: Any) -> None:
    while process.poll() is None and not list(folder.glob("step-*")):
        time.sleep(0.02)


# Logits


def logits(args: argparse.Namespace) -> dict[str, Any]:
    """The largest difference between GPU and CPU, as a share of the largest logit."""
    import jax  # pyright: ignore
    import numpy as np

    backend.start(0)
    from keras_seg import nets

    devices = {"cpu": jax.devices("cpu")[0], "gpu": jax.devices()[0]}
    found: dict[str, Any] = {}
    for name in NETS:
        net = configuration(name, "float32", args.small).net
        size = (64, 96) if args.small else (128, 192)
        with jax.default_device(devices["cpu"]):
            model = nets.build(name, (size[0], size[1], 3), CLASSES, **net.knobs)
            random_weights(model)
        scale = {"hourglass": 1 / 255}.get(name, 1.0)
        image = np.random.default_rng(1).uniform(0, 255, (2, *size, 3)) * scale
        image = image.astype("float32")
        weights = [[np.asarray(v.value) for v in part] for part in parts(model)]

        def predict(device, precision, model=model, weights=weights, image=image):
            with jax.default_matmul_precision(precision):
                step = jax.jit(lambda w, x: model.predict_step(w, (x,))[0]["logits"])
                return np.asarray(step(*jax.device_put((weights, image), device)))

        expected = predict(devices["cpu"], "highest")
        for precision in ("highest", "default"):
            values = predict(devices["gpu"], precision)
            error = np.abs(values - expected).max() / np.abs(expected).max()
            norm = np.linalg.norm(values - expected) / np.linalg.norm(expected)
            agree = float((values.argmax(-1) == expected.argmax(-1)).mean())
            found[f"{name}, {precision} precision"] = {
                "largest": float(error),
                "norm": float(norm),
                "same class": agree,
            }
    return found


def parts(model: Any) -> tuple:
    return model.trainable_variables, model.non_trainable_variables


def random_weights(model: Any) -> None:
    """Weights of a network in training: nothing at zero or one."""
    import numpy as np

    rng = np.random.default_rng(0)
    for weight in model.weights:
        kind = weight.path.rsplit("/", 1)[-1]
        if kind in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif kind != "kernel" and weight.dtype == "float32":
            weight.assign(rng.normal(0, 0.1, weight.shape))


# The loader


def loader(args: argparse.Namespace) -> dict[str, Any]:
    """Images a second of batches of 64 from memory, uint8 as the device gets them."""
    import numpy as np

    from keras_seg.config import Augment
    from keras_seg.data import pipeline
    from keras_seg.data.prepared import open_prepared
    from keras_seg.labels import Head

    found: dict[str, Any] = {"cores": cores()}
    data = args.out / "data"
    if not data.is_dir():
        size = (64, 64) if args.small else (320, 320)
        patches.patches(data, size, 400, CLASSES)
    prepared = open_prepared(data)
    both = Augment(mirror=0.5, scale=(0.5, 2.0))
    threads = [1, 2] if args.small else sorted({1, 4, 8, 12, cores() - 2, cores()})
    sizes = [(64, 64)] if args.small else [(320, 320), (360, 480)]
    rate = 0.0
    for size in sizes:
        samples = pipeline.Samples(prepared, "train", size)
        began = time.monotonic()
        for k in range(len(samples)):
            samples.plain(k)
        rate = len(samples) / (time.monotonic() - began)
        found[f"{size[0]}x{size[1]} decoded, one thread"] = rate
        for workers in threads:
            feed = pipeline.Feed(
                samples,
                64,
                "bgr_minus_mean",
                {"logits": Head()},
                workers=workers,
                normalise=False,
            )
            count, seconds = 0, 1.0 if args.small else 3.0
            stream: Any = iter(feed.training(0, both, 0, 10**6))
            for _ in range(workers + 4):
                next(stream)
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                count += len(next(stream)[0])
            rate = count / (time.monotonic() - began)
            stream.close()
            found[f"{size[0]}x{size[1]} mirror and scale, {workers} threads"] = rate
    assert np.isfinite(rate)
    return found


# Networks against their twins


def network(name: str) -> Callable[[argparse.Namespace], dict[str, Any]]:
    def measure(args: argparse.Namespace) -> dict[str, Any]:
        return compare(name, args)

    return measure


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Ours in bfloat16 and in float32, in turns with PyTorch's in bfloat16."""
    config = configuration(name, "bfloat16", args.small)
    found: dict[str, Any] = {"batch": config.data.batch, "size": config.data.size}
    place = args.out / f"{name}.json"
    made: dict[str, Any] = {}

    def make(who, maker, *parts):
        try:
            began = time.monotonic()
            made[who] = one = maker(*parts)
            one.train(2)
            one.predict(2)
            found[f"{who} compiled in"] = time.monotonic() - began
        except Exception as error:  # the other one is measured all the same
            traceback.print_exc()
            found[f"{who} failed"] = f"{type(error).__name__}: {str(error)[:200]}"

    from keras_seg import nets
    from keras_seg.runs.benchmark import ours, theirs

    network, weights = ours.built(config, CLASSES)
    # They compile on the CPU: together that takes as long as the slower one
    way, preprocess = theirs.Way(compiles=not args.small), nets.get(name).preprocess
    parts = (theirs.Theirs, config, weights, CLASSES, way, preprocess)
    thread = threading.Thread(target=make, args=("pytorch bfloat16", *parts))
    thread.start()
    make("bfloat16", ours.Ours, config, network, CLASSES)
    thread.join()
    measure(made, found, args)
    storage.write_json(place, found)  # what there is, if the time runs out
    config = configuration(name, "float32", args.small)
    make("float32", ours.Ours, config, ours.built(config, CLASSES)[0], CLASSES)
    if made.pop("bfloat16", None) is not None:
        measure(made, found, args)
    return found


def measure(made: Mapping[str, Any], found: dict, args: argparse.Namespace) -> None:
    """Steps and predictions of each in turns, as images a second."""
    size, batch = found["size"], found["batch"]
    steps = 2 if args.small else max(5, args.steps * batch // 64)
    with device(args.out):
        for what in ("train", "predict"):
            rates: dict[str, list[float]] = {who: [] for who in made}
            for turn in range(args.turns):
                for who in sorted(made, reverse=turn % 2 == 1):
                    rates[who].append(batch / getattr(made[who], what)(steps))
            for who, values in rates.items():
                found.setdefault(f"{who} {what}", summary(values))
            for who in rates.keys() - {"pytorch bfloat16"}:
                pairs = zip(rates[who], rates.get("pytorch bfloat16", []))
                ratios = [ours / theirs for ours, theirs in pairs]
                if ratios:
                    found[f"{who} {what} ratio"] = summary(ratios)
    for who, one in made.items():
        found.setdefault(f"{who} GB", one.memory() / 1e9)
    print(size, batch, steps, flush=True)


def summary(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
    }


# What determinism costs


FLAGS = {
    "deterministic": "--xla_gpu_deterministic_ops=true",
    "without atomics, fastest kernels": "--xla_gpu_deterministic_ops=false "
    "--xla_gpu_exclude_nondeterministic_ops=true",
    "as XLA comes": "--xla_gpu_deterministic_ops=false",
}


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The main network's step in bfloat16 under other flags of XLA."""
    if "GPU_CHECK_FLAGS" in os.environ:  # one of the processes below
        from keras_seg.runs.benchmark import ours

        config = configuration(main_net(args), "bfloat16", args.small)
        one = ours.Ours(config, ours.built(config, CLASSES)[0], CLASSES)
        one.train(2)
        with device(args.out.parent):
            steps = 2 if args.small else args.steps
            rates = [config.data.batch / one.train(steps) for _ in range(args.turns)]
        return {"images_per_second": summary(rates), "GB": one.memory() / 1e9}
    processes = {}
    for name, flags in FLAGS.items():
        out = args.out / name.replace(" ", "_").replace(",", "")
        words = [sys.executable, __file__, "--section", "settings", "--out", out]
        words += ["--steps", args.steps, "--turns", args.turns]
        words += ["--small"] if args.small else []
        variables = os.environ | {"XLA_FLAGS": flags, "GPU_CHECK_FLAGS": "1"}
        process = subprocess.Popen([str(word) for word in words], env=variables)
        processes[name] = process, out / "settings.json"
    found: dict[str, Any] = {}
    for name, (process, place) in processes.items():
        code = process.wait()
        found[name] = storage.read_json(place) if code == 0 else f"exit code {code}"
        storage.write_json(args.out / "settings.json", found)
    return found


SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "runs": runs,
    "icnet": network("icnet"),
    "loader": loader,
    "settings": settings,
    "logits": logits,
    "segnet_basic": network("segnet_basic"),
    "hourglass": network("hourglass"),
}


# The report

REHEARSAL = """\
**A rehearsal** without a GPU: networks at 64x64 px (logits at 64x96), batches of 2,
turns of two steps; `runs` and `settings` train a small hourglass in ICNet's place. It
shows whether every section runs, and whether runs are equal to the bit. Its speeds are
of a few milliseconds each and say nothing about a GPU."""


def markdown(report: dict[str, Any]) -> str:
    found, sections = report["machine"], report["sections"]
    lines = [f"# GPU check: {found.get('gpu', 'unknown device')}", ""]
    command = f"KERAS_BACKEND=jax python tools/gpu_check.py {report['command']}"
    lines += [f"Written by `{command}`.", ""]
    if report["is_rehearsal"]:
        lines += [REHEARSAL, ""]
    lines += [f"* {key}: {value}" for key, value in found.items()]
    for name, section in sections.items():
        lines += ["", f"## {name}: {section['state']} ({section['seconds']} s)", ""]
        if name in NETS:
            lines += network_table(section)
        else:
            rows = [(k, v) for k, v in section.items() if k not in ("state", "seconds")]
            lines += [f"* {key}: {shown(value)}" for key, value in rows]
    rate = sections.get("runs", {}).get("images_per_second")
    if rate and not report["is_rehearsal"]:
        hours = CHAIN * 64 / rate / 3600
        lines += ["", f"The thesis' chain of ICNet, {CHAIN} steps of 64 images at "]
        lines[-1] += f"320x320, would take {hours:.1f} h of training at this rate."
    return "\n".join(lines) + "\n"


def network_table(section: dict[str, Any]) -> list[str]:
    lines = ["| | images/s | against PyTorch, bfloat16 | GB |"]
    lines += ["| --- | --- | --- | --- |"]
    for what in ("train", "predict"):
        for who in ("pytorch bfloat16", "bfloat16", "float32"):
            rate = section.get(f"{who} {what}", section.get(f"{who} failed", "-"))
            ratio = section.get(f"{who} {what} ratio", "-")
            memory = section.get(f"{who} GB") or "-"  # a CPU does not say
            label = who if who.startswith("py") else f"keras_seg {who}"
            cells = [f"{what}, {label}", shown(rate), shown(ratio), shown(memory)]
            lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"* {k}: {shown(v)}" for k, v in section.items() if "compiled" in k]
    return lines


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and "median" in value:
        numbers = (value["median"], value["least"], value["most"])
        return "{} ({} to {})".format(*map(shown, numbers))
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(one)}" for key, one in value.items())
    return str(value)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
