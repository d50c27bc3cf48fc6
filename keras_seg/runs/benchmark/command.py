"""The command `keras-seg benchmark`: what runs beside what, in rounds."""

import datetime
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from keras_seg import backend, storage
from keras_seg.command_line import Parser, install_hint, note, positive_int
from keras_seg.config import Augment, Config, to_dict
from keras_seg.errors import UsageError
from keras_seg.runs import engines
from keras_seg.runs.benchmark import report
from keras_seg.runs.benchmark.contestant import CLASSES, Contestant, FailedError
from keras_seg.runs.benchmark.patches import patches

LONGEST_TURN = 50  # steps
SETTLED = 2  # turns of each that do not count, one where a step is a turn
IMAGES = 96  # of the prepared folder for loading and scoring, 320 x 320 px
WORKERS = 2  # of a loader, as a run has them on a CPU
LIBRARIES = ("tensorflow", "keras", "jax", "torch", "onnxruntime", "openvino")
LIBRARIES += ("ai-edge-litert", "numpy", "opencv-python-headless")


@dataclass(frozen=True)
class Case:
    """A network at a size; with every engine where it predicts, which takes longer."""

    net: str
    size: tuple[int, int]
    batch: int
    knobs: Mapping[str, Any] = field(default_factory=dict)
    predicts: bool = True

    def config(self, precision: str = "float32") -> Config:
        return Config(
            net={"name": self.net, **self.knobs},
            data={"size": self.size, "batch": self.batch},
            augment=Augment(mirror=0.5, scale=(0.5, 2.0)),
            optimizer={"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4},
            validation={"batch": self.batch},
            precision=precision,
            steps=1000,
        )


CASES: Mapping[str, Case] = MappingProxyType(
    {
        "icnet-128": Case("icnet", (128, 128), 16),
        "icnet-320": Case("icnet", (320, 320), 16, predicts=False),
        "segnet_basic": Case("segnet_basic", (128, 128), 4),
        "unet_bn": Case("unet_bn", (128, 128), 2),
        "hourglass": Case("hourglass", (128, 128), 8, {"features": 64}, False),
    }
)
PARTS = (*CASES, "loader", "validation", "start-up")


def main(argv: list[str], prog: str = "keras-seg benchmark") -> int:
    """Measure how fast this machine trains and predicts, beside PyTorch.

    keras-seg benchmark --out benchmark.md

    Nothing else should be running. Every contestant is a process of its own; they take
    turns, so that what slows the machine down slows all of them. A ratio is the median
    over the rounds, each of which has its own.

    icnet-128, icnet-320, segnet_basic, unet_bn, hourglass
                training steps and memory, beside the network's twin in PyTorch (extra
                `peers`); but for icnet-320 and hourglass predictions, too, with every
                engine that is installed
    loader      mirrored and scaled images a second, beside PyTorch's DataLoader
    validation  images a second scored, beside the forward passes alone and PyTorch
    start-up    from the start of a process to its second training step; the help

    FILE gets the tables, FILE.json the numbers of every turn. A part that FILE.json
    has already is measured anew only when --only names it; so parts may be measured
    one by one.
    """
    args = parse(argv, prog)
    place = args.out.with_suffix(".json")
    machine = described()
    found = storage.read_json(place, "Delete it.") if place.is_file() else {}
    check_same_machine(found.get("machine", machine), machine, place)
    found = {"machine": machine, "parts": dict(found.get("parts", {}))}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.only or [part for part in PARTS if part not in found["parts"]]:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            part = measure(name, args, Path(folder))
        part["seconds"] = round(time.monotonic() - began)
        part["date"] = datetime.date.today().isoformat()
        part["command"] = shlex.join(["keras-seg", "benchmark", *argv])
        part["arithmetic"] = backend.ARITHMETIC
        found["parts"][name] = part
        storage.write_json(place, found)
        storage.write_file(args.out, report.markdown(found))
        note(f"{name}: {part['seconds']} s")
    print(report.markdown(found))
    return 0


def parse(argv: list[str], prog: str) -> Any:
    parser = Parser(prog=prog, description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmark.md"), help="FILE")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help="of those above"
    )
    parser.add_argument("--rounds", type=positive_int, default=5, help="default: 5")
    parser.add_argument(
        "--seconds", type=positive_int, default=1, help="of a turn; default: 1"
    )
    parser.add_argument(
        "--compiled",
        action="store_true",
        help="PyTorch with torch.compile as well; minutes more for each network",
    )
    args = parser.parse_args(argv)
    if args.out.suffix == ".json":
        raise UsageError(f"--out {args.out} is for the tables; name a .md file.")
    if args.compiled and not compiler():
        raise UsageError(
            "--compiled needs a C++ compiler (g++ or clang++), which torch.compile "
            "calls. Install one, or leave --compiled out."
        )
    return args


def compiler() -> str | None:
    """The C++ compiler that torch.compile would call."""
    names = (os.environ.get("CXX", ""), "g++", "clang++")
    return next((name for name in names if name and shutil.which(name)), None)


def described() -> dict[str, str]:
    """What the numbers depend on."""
    versions = {name: version(name) for name in LIBRARIES}
    return {
        "processor": backend.processor(),
        "cores": str(os.cpu_count()),
        "python": sys.version.split()[0],
        **{name: found for name, found in versions.items() if found},
    }


def version(name: str) -> str:
    for one in (name, f"{name}-cpu"):
        try:
            return importlib.metadata.version(one)
        except importlib.metadata.PackageNotFoundError:
            pass
    return ""


def check_same_machine(
    old: Mapping[str, str], new: Mapping[str, str], place: Path
) -> None:
    """UsageError where what was measured earlier cannot stand beside what comes."""
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            raise UsageError(
                f"{place} was measured with {key} {old.get(key, 'missing')}, but here "
                f"it is {new.get(key, 'missing')}. Name another file with --out."
            )


# The parts


def measure(name: str, args: Any, folder: Path) -> dict[str, Any]:
    """The numbers of a part: {"steps": {who: ...}, "notes": [sentence]}."""
    if name in CASES:
        return network(CASES[name], args, folder)
    return OTHERS[name](args, folder)


class Group:
    """Contestants that take turns.

    Attributes:
        members: by name; one that failed is not among them.
        notes: why.
    """

    def __init__(self, folder: Path, rounds: int, seconds: float):
        self.folder, self.rounds, self.seconds = folder, rounds, seconds
        self.members: dict[str, Contestant] = {}
        self.notes: list[str] = []

    def add(self, who: str, spec: Mapping[str, Any], **environment: str) -> None:
        log = self.folder / f"{who.replace(' ', '-')}.log"
        with self.noted(who):
            self.members[who] = Contestant(spec, log, environment)

    @contextmanager
    def noted(self, who: str) -> Iterator[None]:
        """A contestant that fails leaves, with a note."""
        try:
            yield
        except FailedError as error:
            self.members.pop(who, None)
            self.notes.append(f"{who} is left out: {error}")
            note(self.notes[-1])

    def take_turns(
        self, what: Mapping[str, str], images: int
    ) -> dict[str, dict[str, Any]]:
        """Images a second of every turn.

        Args:
            what: {who: what it does in its turn}.
            images: of a step.
        """
        steps: dict[str, int] = {}
        for who, name in what.items():
            with self.noted(who):
                count = 1
                for _ in range(SETTLED):
                    seconds = self.members[who].turn(name, count)
                    count = max(1, min(LONGEST_TURN, round(self.seconds / seconds)))
                    if count == 1:
                        break
                steps[who] = count
        rates: dict[str, list[float]] = {who: [] for who in steps}
        for number in range(self.rounds):
            for who in sorted(steps, reverse=number % 2 == 1):
                if who in self.members:
                    with self.noted(who):
                        seconds = self.members[who].turn(what[who], steps[who])
                        rates[who].append(images / seconds)
        return {
            who: {"rates": rates[who], "bytes": self.members[who].memory}
            for who in rates
            if who in self.members
        }

    def stop(self) -> None:
        for member in self.members.values():
            member.stop()
        self.members.clear()


@contextmanager
def group(args: Any, folder: Path) -> Iterator[Group]:
    made = Group(folder, args.rounds, args.seconds)
    try:
        yield made
    finally:
        made.stop()


def network(case: Case, args: Any, folder: Path) -> dict[str, Any]:
    notes: list[str] = []
    precisions = {"": "float32"}
    if backend.resolved_precision("auto") == "mixed_bfloat16":
        precisions[" bfloat16"] = "mixed_bfloat16"
    else:
        notes.append(
            "bfloat16 is left out: this processor has no arithmetic for it "
            "(neither avx512_bf16 nor amx_bf16)."
        )
    ways, why = torch_ways(args.compiled)
    notes += why
    found: dict[str, Any] = {"net": case.net, "size": case.size, "batch": case.batch}

    def add(contestants: Group, ours: str, torch: str, weights: Path) -> None:
        for suffix, precision in precisions.items():
            config = to_dict(case.config(precision))
            both = {"config": config, "weights": str(weights)}
            contestants.add(f"keras_seg{suffix}", both | {"kind": ours})
            for way, options in ways.items():
                spec = both | options | {"kind": torch}
                contestants.add(f"PyTorch{suffix} {way}", spec)

    with group(args, folder) as contestants:
        add(contestants, "keras", "torch", folder / "weights.npz")
        if importlib.util.find_spec("jax"):
            spec = {"kind": "keras", "config": to_dict(case.config())}
            spec["weights"] = str(folder / "weights-jax.npz")
            contestants.add("keras_seg on JAX", spec, KERAS_BACKEND="jax")
        what = dict.fromkeys(contestants.members, "train")
        found["train"] = contestants.take_turns(what, case.batch)
        notes += contestants.notes
    if not case.predicts:
        return found | {"notes": notes}
    with group(args, folder) as contestants:
        weights = folder / "settled.npz"
        places = exported(case, contestants, folder, weights)
        add(contestants, "keras predictions", "torch predictions", weights)
        for engine, place in places.items():
            spec = {"kind": "engine", "engine": engine, "folder": str(place)}
            contestants.add(engine, spec | {"config": to_dict(case.config())})
        what = dict.fromkeys(contestants.members, "predict")
        found["predict"] = contestants.take_turns(what, case.batch)
        return found | {"notes": notes + contestants.notes}


def torch_ways(compiled: bool) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """{name: how PyTorch is used}; and why it is not."""
    if not importlib.util.find_spec("torch"):
        hint = install_hint("peers")
        return {}, [f"PyTorch is left out: it is not installed ({hint})."]
    ways = {
        f"{'compiled ' if compiles else ''}{layout}": {
            "compiles": compiles,
            "is_channels_last": layout == "channels_last",
        }
        for compiles in ((False, True) if compiled else (False,))
        for layout in ("NCHW", "channels_last")
    }
    left_out = "torch.compile is left out: --compiled measures it."
    if not compiler():
        left_out = "torch.compile is left out: there is no C++ compiler (g++, clang++)."
    return ways, [] if compiled else [left_out]


def exported(
    case: Case, contestants: Group, folder: Path, weights: Path
) -> dict[str, Path]:
    """The exports of a network by the engine that opens each; its weights as a file."""
    places: dict[str, Path] = {}
    for name, engine in engines.ENGINES.items():
        if engine.is_installed():
            places[name] = folder / engine.formats[0]
        else:
            contestants.notes.append(
                f"{name} is left out: it is not installed "
                f"({install_hint(engine.extra)})."
            )
    formats = {place.name: str(place) for place in places.values()}
    spec = {"kind": "exports", "folders": formats, "config": to_dict(case.config())}
    spec["weights"] = str(weights)
    contestants.add("exports", spec)
    for name, place in list(places.items()):
        if "exports" not in contestants.members:  # it failed, and ended
            contestants.add("exports", spec)
        try:
            contestants.members["exports"].turn(place.name, 1)
        except (FailedError, KeyError) as error:
            contestants.members.pop("exports", None)
            contestants.notes.append(f"{name} is left out: {error}")
            del places[name]
    if "exports" in contestants.members:
        contestants.members.pop("exports").stop()
    return places


def loader(args: Any, folder: Path) -> dict[str, Any]:
    case = CASES["icnet-320"]
    data = patches(folder / "data", case.size, IMAGES, CLASSES)
    spec: dict[str, Any] = {"config": to_dict(case.config()), "workers": WORKERS}
    spec["data"] = str(data)
    with group(args, folder) as contestants:
        contestants.add("keras_seg", spec | {"kind": "keras loader"})
        if importlib.util.find_spec("torch"):
            contestants.add("PyTorch DataLoader", spec | {"kind": "torch loader"})
        what = dict.fromkeys(contestants.members, "load")
        found = contestants.take_turns(what, case.batch)
        return {"load": found, "notes": contestants.notes}


def validation(args: Any, folder: Path) -> dict[str, Any]:
    case = CASES["icnet-320"]
    spec = {"config": to_dict(case.config()), "weights": str(folder / "weights.npz")}
    spec["data"] = str(patches(folder / "data", case.size, IMAGES, CLASSES))
    with group(args, folder) as contestants:
        contestants.add("keras_seg", spec | {"kind": "keras scores"})
        contestants.members["forward passes"] = contestants.members["keras_seg"]
        what = {"keras_seg": "evaluate", "forward passes": "forward"}
        if importlib.util.find_spec("torch"):
            for way, options in torch_ways(False)[0].items():
                contestants.add(f"PyTorch {way}", spec | options | {"kind": "torch"})
                what[f"PyTorch {way}"] = "evaluate"
        found = contestants.take_turns(what, case.batch)
        return {"evaluate": found, "notes": contestants.notes}


def start_up(args: Any, folder: Path) -> dict[str, Any]:
    """Seconds from the start of a process, in rounds."""
    case = CASES["icnet-128"]
    spec = {"config": to_dict(case.config()), "weights": str(folder / "weights.npz")}
    starts = {"keras_seg": spec | {"kind": "keras"}}
    for way, options in torch_ways(False)[0].items():
        starts[f"PyTorch {way}"] = spec | options | {"kind": "torch"}
    seconds: dict[str, list[float]] = {}
    with group(args, folder) as contestants:
        for _ in range(min(3, args.rounds)):
            for who, one in starts.items():
                contestants.add(who, one)
                if who in contestants.members:
                    began = contestants.members.pop(who)
                    seconds.setdefault(who, []).append(began.seconds)
                    began.stop()
            began_at = time.monotonic()
            words = [sys.executable, "-m", "keras_seg", "--help"]
            subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
            seconds.setdefault("keras-seg --help", []).append(
                time.monotonic() - began_at
            )
        notes = contestants.notes
    found = {who: {"seconds": values} for who, values in seconds.items()}
    return {"start": found, "notes": notes}


OTHERS = {"loader": loader, "validation": validation, "start-up": start_up}
