"""One bit of any file that is read back: never another value without a word.

A file is either refused by name or gives what it gave before. `make test-all` flips
3,000 bits, over all files of a prepared folder, a run, its checkpoint and a stage.
"""

import collections
import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import miniatures
import numpy as np
import pytest
from test_ablation_runner import BASE, PLAN, WIDTH, Trainer
from test_ablation_runner import execution as stage_execution
from test_fuzz import places_in, replaced
from test_report_page import CONTEXT, leave_undrawn

from keras_seg import command_line, storage
from keras_seg.ablation.runner import run_stages, stage_start
from keras_seg.ablation.task import Journal
from keras_seg.config import Config
from keras_seg.data import prepared
from keras_seg.data.prepared import open_prepared, read_image, read_label
from keras_seg.errors import KerasSegError, StorageError
from keras_seg.report import page
from keras_seg.report.blocks import Paragraph
from keras_seg.runs import checkpoint, export
from keras_seg.runs import folder as run_folder
from keras_seg.runs import train as training

FEW, MANY = 400, 3000  # flipped bits; the many are for make test-all
CONFIG = Config(net="icnet", data={"size": (32, 64)}, steps=4, augment={"mirror": 0.5})


class File(NamedTuple):
    """A file that is read back, and what reads it."""

    path: Path
    read: Callable[[], Any]


def make_run(run: Path, data: Path) -> Iterator[File]:
    """The files of an unfinished and of a finished run."""
    rng = np.random.default_rng(0)
    identity = run_folder.identity(CONFIG, open_prepared(data))
    storage.write_json(run / "config.json", identity)
    yield File(run / "config.json", lambda: run_folder.read_identity(run))
    environment = {"fingerprint": {"cpu": "x", "threads": 2}, "data": str(data)}
    environment |= {"commit": None, "inexact": [], "command": ["train", "--lr", "0.1"]}
    storage.write_json(run / "environment.json", environment)
    yield File(run / "environment.json", lambda: run_folder.read_environment(run))
    rows = [{"step": k, "loss": rng.normal(), "val_miou": rng.random()} for k in (2, 4)]
    storage.write_table(run / "history.csv", rows, hashed=True)
    yield File(run / "history.csv", lambda: run_folder.read_history(run))
    timing = [{"name": "train_seconds", "value": 1.5}, {"name": "ms", "value": 2.25}]
    storage.write_table(run / "timing.csv", timing, hashed=True)
    yield File(run / "timing.csv", lambda: run_folder.read_timing(run))
    storage.write_json(run / "metrics.json", miniatures.scores(0.25))
    yield File(run / "metrics.json", lambda: run_folder.read_metrics(run))
    for split in (None, "test"):
        path = run_folder.per_image_file(run, split)
        path.parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 300, (3, 4))
        counts = run_folder.PerImage(("a", "b", "c"), pixels, pixels + 1, pixels + 2)
        run_folder.write_per_image(path, counts)
        yield File(path, lambda split=split: run_folder.read_per_image(run, split))
    scores = miniatures.scores(0.5, split="test", manifest="9f", full_size=True)
    path = run_folder.evaluation_file(run, "test", True)
    storage.write_json(path, scores)
    yield File(path, lambda: run_folder.read_evaluation(run, "test", True))
    run_folder.write_failure(run, StorageError("The disk is full."))
    yield File(run / "failure.json", lambda: run_folder.read_failure(run))
    arrays = {"model/0/kernel": rng.normal(size=(2, 3)), "model/1/seed": np.arange(2)}
    storage.write_arrays(run / "samples.npz", arrays)
    yield File(run / "samples.npz", lambda: storage.read_arrays(run / "samples.npz"))
    meta = {"state": {"step": 4, "history": rows}, "identity": identity}
    for folder, content in (("checkpoints", meta), ("best", identity)):
        place = checkpoint.save(run / folder, 4, arrays, content, 2)
        for name in ("arrays.npz", "meta.json"):
            yield File(place / name, lambda place=place: checkpoint.load(place))
    record = {"size": [32, 64], "run": identity, "step": 4, "format": "saved_model"}
    record["check"] = {"images": 8, "largest_difference": 2.5e-7}
    folder = run / "export" / "saved_model"
    folder.mkdir(parents=True)
    storage.write_json(folder / export.RECORD, record)
    yield File(folder / export.RECORD, lambda: export.read_record(folder))


def make_stage(folder: Path, data: Path) -> Iterator[File]:
    """The files of a study that no run has."""
    identity = run_folder.identity(CONFIG, open_prepared(data))
    storage.write_json(folder / "base.json", identity)
    yield File(folder / "base.json", lambda: storage.read_json(folder / "base.json"))
    (folder / "width").mkdir()
    winner = {"arm": "base", "seeds": 2} | identity
    storage.write_json(folder / "width" / "winner.json", winner)
    path = folder / "width" / "winner.json"
    yield File(path, lambda: run_folder.read_winner(path.parent))
    journal = Journal(folder / "journal.jsonl")
    for event in ("begun", "failed", "begun", "diverged"):
        journal.add(
            run="width/base/seed0", event=event, reason=f"{event} so", exit_code=4
        )
    yield File(journal.path, lambda: journal.end("width/base/seed0"))


def make_prepared(folder: Path) -> Iterator[File]:
    """The files of a prepared folder."""

    def opened():
        found = open_prepared(folder)
        joints = {split: found.joints(split) for split in found.splits}
        return found.manifest_hash, found.meta, found.samples("train"), joints

    for name in (prepared.META, prepared.MANIFEST, prepared.SUMS, "joints/val.npz"):
        yield File(folder / name, opened)
    sample = open_prepared(folder).samples("val")[0]
    yield File(sample.image, lambda: read_image(sample.image, sample.image_sha256))
    yield File(sample.label, lambda: read_label(sample.label, sample.label_sha256))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[File]:
    folder = tmp_path_factory.mktemp("damage")
    data = miniatures.bodies(folder / "data")
    (folder / "run").mkdir()
    (folder / "study").mkdir()
    return [
        *make_run(folder / "run", data),
        *make_stage(folder / "study", data),
        *make_prepared(data),
    ]


def outcome(read: Callable[[], Any]) -> str:
    """What a reader gives, to be compared; "" where it refuses by name."""
    try:
        value = read()
    except (KerasSegError, ValueError):  # the latter of `checkpoint.load`
        return ""
    return f"named: {value}" if "damaged" in str(value) else as_text(value)


def as_text(value: Any) -> str:
    """All bits of a value."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k!r}: {as_text(v)}' for k, v in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(as_text, value))}]"
    if isinstance(value, run_folder.PerImage):
        return as_text(list(vars(value).values()))
    return repr(value)


@pytest.mark.parametrize("flips", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_no_flipped_bit_is_accepted_silently(files, flips):
    rng = np.random.default_rng(flips)
    originals = [(file.path.read_bytes(), outcome(file.read)) for file in files]
    assert all(before for _, before in originals)
    silent, refused = [], dict.fromkeys((file.path.name for file in files), 0)
    numbered = zip(itertools.cycle(zip(files, originals)), range(flips))
    for (file, (content, before)), _ in numbered:
        bit = int(rng.integers(8 * len(content)))
        spoilt = bytearray(content)
        spoilt[bit // 8] ^= 1 << bit % 8
        file.path.write_bytes(spoilt)
        after = outcome(file.read)
        file.path.write_bytes(content)
        refused[file.path.name] += not after or after.startswith("named: ")
        if after not in ("", before) and not after.startswith("named: "):
            silent.append((file.path.name, bit, spoilt[bit // 8 - 20 : bit // 8 + 20]))
    print(f"{flips} flips in {len(files)} files; refused: {refused}")
    assert silent == []
    assert all(refused.values())  # the flips reach every kind of file


VALUES = (None, True, -1, 10**30, 1e308, math.nan, "x", "", [], {}, [1, "x"], {"a": 1})
FORESEEN = {0, 2, 3, 5, 6}  # exit codes


def edits(content: str, rng: np.random.Generator, times: int) -> Iterator[str]:
    """A JSON file with one value replaced or left out, without a hash, as by hand."""
    value = json.loads(content)
    value.pop(storage.HASH, None)
    yield from ("[]", "null", "{}", '"x"', "[" * 100_000)
    yield json.dumps(value | {"more": 1})
    places = list(places_in(value))[1:]
    for _ in range(times):
        place = places[rng.integers(len(places))]
        new = VALUES[rng.integers(len(VALUES))]
        yield replaced(value, place, bool(rng.random() < 0.2), new).decode()


@pytest.fixture
def study(monkeypatch, shapes, tmp_path) -> Path:
    """A folder with the finished runs of a stage, and all files that they may have."""
    monkeypatch.setattr(training, "train", Trainer())
    execution = stage_execution(tmp_path / "study", shapes)
    list(run_stages(PLAN, [WIDTH], BASE, execution))
    for run in execution.folder.glob("width/*/seed0"):
        environment = {"fingerprint": {"cpu": run.parent.name}, "data": str(shapes)}
        environment |= {"inexact": ["threads: 1 -> 2"], "commit": "abc"}
        storage.write_json(run / "environment.json", environment)
        rows = [{"step": k, "loss": 0.5, "val_miou": 0.25} for k in (1, 2)]
        storage.write_table(run / "history.csv", rows, hashed=True)
        rows = [{"name": "train_seconds", "value": 1.5}]
        storage.write_table(run / "timing.csv", rows, hashed=True)
        pixels = np.ones((2, 4), int)
        counts = run_folder.PerImage(("a", "b"), pixels, 2 * pixels, 3 * pixels)
        run_folder.write_per_image(run / "per_image.npz", counts)
        folder = run / "export" / "saved_model"
        folder.mkdir(parents=True)
        check = {"images": 8, "largest_difference": 2.5e-7}
        record = {"size": [32, 64], "check": check, "step": 1}
        identity = run_folder.read_identity(run)
        storage.write_json(folder / export.RECORD, record | {"run": identity})
        run_folder.write_failure(run, StorageError("The disk was full."))
    return execution.folder


def report(folder: Path, data: Path) -> int:
    """Take the stage up again and report it; nothing is drawn."""
    execution = stage_execution(folder, data)
    exports = dataclasses.replace(WIDTH, exports=True)
    plan = dataclasses.replace(PLAN, stages=(WIDTH, *PLAN.stages[1:]))
    stage_start(PLAN, PLAN.stages[1], BASE, execution)
    for results in run_stages(plan, [WIDTH], BASE, execution):
        runs = [result.run for stage in results for result in stage.results]
        context = dataclasses.replace(
            CONTEXT,
            environment=run_folder.common_environment(runs),
            names=execution.prepared.labels.names,
        )
        shown = [dataclasses.replace(r, stage=exports) for r in results[:1]]
        page.write(folder, title="A study", stages=shown, context=context)
    for run in folder.glob("*/*/seed*"):
        run_folder.read_failure(run)
        execution.journal.end(run.relative_to(folder).as_posix())
    return 0


@pytest.mark.parametrize("times", [2, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    ["base.json", "journal.jsonl", "width/winner.json"]
    + [
        f"width/normal/seed0/{name}"
        for name in ("config.json", "environment.json", "metrics.json", "failure.json")
    ]
    + ["width/doubled/seed0/export/saved_model/export.json"],
)
def test_an_edited_file_never_ends_in_an_unforeseen_error(
    name, times, study, shapes, monkeypatch, capsys
):
    leave_undrawn(monkeypatch)
    for chart in ("curves", "pictures", "sheets"):
        monkeypatch.setattr(page.charts, chart, lambda *_: [])
    for chart in ("data_figure", "class_figures"):
        monkeypatch.setattr(page.charts, chart, lambda *_: Paragraph(""))
    assert command_line.run(lambda _: report(study, shapes), []) == 0
    whole = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    path, codes = study / name, collections.Counter()
    content = whole[path].decode()
    if path.suffix == ".jsonl":
        content = content.splitlines()[-1]
    for edited in edits(content, np.random.default_rng(len(name)), times):
        path.write_text(f"{edited}\n")
        code = command_line.run(lambda _: report(study, shapes), [])
        assert code in FORESEEN, (edited[:300], capsys.readouterr().err[-2000:])
        codes[code] += 1
        for file, before in whole.items():
            file.write_bytes(before)
    print(f"{name}: {dict(codes)}")
    assert codes[5] + codes[2] > 0 or name.endswith(("failure.json", "export.json"))


def test_files_of_versions_without_hashes_are_read(files):
    for file in files:
        if file.path.suffix == ".json" and file.path.name != "meta.json":
            before, content = outcome(file.read), file.path.read_bytes()
            value = json.loads(content)
            assert value.pop(storage.HASH)
            file.path.write_text(json.dumps(value))
            assert outcome(file.read) == before, file.path
            file.path.write_bytes(content)
