"""Files of predictions: many pictures and videos, resumable, several at a time.

OUT/prediction.json says what predicted them, OUT/areas.csv which are done: a picture
gets its row once all its files are whole. Reading, the network and writing overlap.
"""

import csv
import io
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np

from keras_seg import storage
from keras_seg.command_line import Progress, check_folder, note
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import LabelSpec
from keras_seg.runs import pictures
from keras_seg.runs.pictures import ArrayWriter, PngWriter, Size
from keras_seg.runs.predict import Predictor

RECORD, AREAS = "prediction.json", "areas.csv"
FORMAT_VERSION = 1
OUTPUTS = {
    "ids": "class ids, shown in the colours of the classes",
    "colour": "the colours alone",
    "overlay": "the picture under the colours, with a legend",
    "probabilities": "of each class: float16 [H, W, C], a NumPy file",
}
DEFAULT_OUTPUTS = ("ids", "overlay")
BATCH = 8  # pictures that the network takes at once
BATCH_PIXELS = 1 << 21  # of them together, at the network's size
PIXELS = 1 << 27  # of the pictures held at a time, if there are several; 400 MB
STRIP = 1 << 21  # pixels that are drawn at a time
IN_MEMORY = 1 << 22  # pixels of an overlay that is drawn as a whole

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Summary:
    """What a call of `predict_files` did.

    Attributes:
        predicted: how many pictures, each frame of a video counted once.
        skipped: how many were done before.
        errors: of those that cannot be read.
    """

    predicted: int
    skipped: int
    errors: tuple[DataError, ...]


@dataclass(frozen=True)
class _Task:
    """A picture or a video with the files of its results."""

    file: Path
    name: str
    targets: Mapping[str, Path]


def predict_files(
    predictor: Predictor,
    places: Sequence[str | PathLike],
    out: Path,
    *,
    outputs: Sequence[str] = DEFAULT_OUTPUTS,
    legend: bool = True,
    batch: int = BATCH,
    workers: int = 2,
    shard: tuple[int, int] | None = None,
    force: bool = False,
) -> Summary:
    """Predict pictures and write the results, each at its picture's own size.

    The same call again skips what is done, also after it was killed.

    Args:
        predictor: of `keras_seg.load`.
        places: pictures, videos, folders and patterns (`pictures.find`).
        out: the folder of the results; made where it is missing.
        outputs: keys of `OUTPUTS`. NAME_ids.png and so on; of a video, folders of
            frames, and NAME_colour.mp4 and NAME_overlay.mp4.
        legend: below each overlay.
        batch: pictures that the network takes at once.
        workers: threads that read and write.
        shard: (i, n): only each n-th picture from the i-th of 1..n on, so that n
            processes share the work; a call without it then joins their tables.
        force: replace results that are there, whatever made them.

    Returns:
        Pictures that cannot be read are among its errors; the others are done.

    Raises:
        UsageError: a result is there that this call did not make, or would replace a
            picture; results of another model or of other options. Nothing is written.
        LockedError: another process predicts into `out`.
        StorageError: the disk is full or not writable.
    """
    tasks = _tasks(pictures.find(places), out, outputs)
    record = _record(predictor, outputs, legend)
    journal = out if shard is None else out / f".shard-{shard[0]}-of-{shard[1]}"
    with storage.lock(journal):
        if shard is None and not any(out.glob(".shard-*")):
            for folder in {path.parent for t in tasks for path in t.targets.values()}:
                storage.sweep(folder)
        done = _begin(out, journal, tasks, record, force)
        share = tasks if shard is None else tasks[shard[0] - 1 :: shard[1]]
        todo = [task for task in share if task.name not in done]
        _check_changed(tasks, done)
        run = _Run(predictor, outputs, legend, batch, workers, journal)
        predicted, errors = run.all(todo)
        if shard is None:
            _join(out, [task.name for task in tasks])
    return Summary(predicted, len(tasks) - len(todo), tuple(errors))


def begin(
    predictor: Predictor,
    places: Sequence[str | PathLike],
    out: Path,
    *,
    outputs: Sequence[str] = DEFAULT_OUTPUTS,
    legend: bool = True,
    force: bool = False,
) -> int:
    """Make `out` ready for processes that each predict a shard; how many pictures.

    Arguments and errors are those of `predict_files`.
    """
    tasks = _tasks(pictures.find(places), out, outputs)
    with storage.lock(out):
        _begin(out, out, tasks, _record(predictor, outputs, legend), force)
    return len(tasks)


def count_done(out: Path) -> int:
    """How many pictures the tables in a folder have; a video counts once."""
    return len({row["picture"] for row in _rows(out)})


def _tasks(files: Mapping[Path, str], out: Path, outputs: Sequence[str]) -> list[_Task]:
    for name in outputs:
        if name not in OUTPUTS:
            known = ", ".join(OUTPUTS)
            raise UsageError(f"There is no output {name!r}. Outputs: {known}.")
    check_folder(out)
    sources = {file.resolve() for file in files}
    tasks = []
    for file, name in files.items():
        endings = _endings(pictures.is_video(file))
        targets = {one: out / f"{name}_{one}{endings[one]}" for one in outputs}
        for path in targets.values():
            if path.resolve() in sources:
                raise UsageError(
                    f"{path} is one of the pictures; its result must not replace it. "
                    "Name another folder with --out."
                )
        tasks.append(_Task(file, name, targets))
    return tasks


def _endings(is_video: bool) -> dict[str, str]:
    if is_video:
        return {"ids": "", "colour": ".mp4", "overlay": ".mp4", "probabilities": ""}
    return {"ids": ".png", "colour": ".png", "overlay": ".png", "probabilities": ".npy"}


# What is done


def _record(
    predictor: Predictor, outputs: Sequence[str], legend: bool
) -> dict[str, Any]:
    members, labels = predictor.members, predictor.labels
    options = asdict(predictor.options).items()
    return {
        "format_version": FORMAT_VERSION,
        "models": [str(member.folder) for member in members],
        "weights": [member.weights for member in members],
        "classes": list(labels.names),
        "palette": [list(colour) for colour in labels.palette],
        "outputs": [name for name in OUTPUTS if name in outputs],
        "legend": legend,
        "options": {k: list(v) if isinstance(v, tuple) else v for k, v in options},
    }


def _begin(
    out: Path,
    journal: Path,
    tasks: Sequence[_Task],
    record: dict[str, Any],
    force: bool,
) -> set[str]:
    """Check what is in `out`, leave the record there; the names that are done."""
    path = out / RECORD
    plan = storage.json_sha256([task.name for task in tasks])
    found = storage.read_json(path, "Name another folder.") if path.is_file() else None
    if found is not None and not force:
        for key in ("weights", "classes", "outputs", "legend", "options"):
            if found.get(key) != record[key]:
                is_model = key in ("weights", "classes")
                raise UsageError(
                    f"{out} holds predictions "
                    + ("of another model" if is_model else f"with other {key}")
                    + ". Name another folder with --out, or replace them with --force."
                )
    if found is None and not force and (out / AREAS).exists():
        raise UsageError(f"{out / AREAS} exists already; --force replaces it.")
    if force and journal == out:
        (out / AREAS).unlink(missing_ok=True)
        for shard in out.glob(".shard-*"):
            shutil.rmtree(shard)
        found = None
    done = {row["picture"] for row in _rows(out)}
    plans = [] if found is None else list(found.get("plans", ()))
    is_resumed = plan in plans
    if not is_resumed and not force:
        for task in tasks:
            there = [path for path in task.targets.values() if path.exists()]
            if there and task.name not in done and not _is_of_shard(path, plan):
                raise UsageError(f"{there[0]} exists already; --force replaces it.")
    if not is_resumed:
        storage.write_json(path, record | {"plans": [*plans, plan]})
    gone = {
        task.name
        for task in tasks
        if task.name in done
        and not all(path.exists() for path in task.targets.values())
    }
    if gone and journal == out:  # to get another row
        rows = [row for row in _rows(out) if row["picture"] not in gone]
        if rows:
            storage.write_table(out / AREAS, rows)
        else:
            (out / AREAS).unlink()
    return done - gone


def _is_of_shard(path: Path, plan: str) -> bool:
    """Whether another shard of the same call has left the record since."""
    return path.is_file() and plan in storage.read_json(path).get("plans", ())


def _check_changed(tasks: Sequence[_Task], done: set[str]) -> None:
    changed = [task.file for task in tasks if task.name in done and _is_newer(task)]
    if changed:
        note(
            f"{changed[0]} was changed after it was predicted"
            + (f", and {len(changed) - 1} others" if len(changed) > 1 else "")
            + "; --force predicts all again."
        )


def _is_newer(task: _Task) -> bool:
    try:
        made = min(path.stat().st_mtime for path in task.targets.values())
        return task.file.stat().st_mtime > made
    except (OSError, ValueError):
        return False


def _tables(out: Path) -> list[Path]:
    return [path for path in (out / AREAS, *sorted(out.glob(f".shard-*/{AREAS}")))]


def _rows(out: Path) -> Iterator[dict[str, str]]:
    """The whole rows of all tables; a killed process may have left half of one."""
    for path in _tables(out):
        if not path.is_file():
            continue
        text = path.read_text("utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            storage.write_file(path, whole)
        rows = csv.DictReader(io.StringIO(whole, newline=""))
        yield from (row for row in rows if None not in row.values())


def _join(out: Path, names: Sequence[str]) -> None:
    """One table of all shards, in the order of the pictures."""
    shards = sorted(out.glob(".shard-*"))
    if not shards:
        return
    with ExitStack() as locks:
        for shard in shards:
            locks.enter_context(storage.lock(shard))  # is it at work still?
        rows = {(row["picture"], row["frame"]): row for row in _rows(out)}
        order = {name: number for number, name in enumerate(names)}
        found = sorted(
            rows.values(),
            key=lambda row: (
                order.get(row["picture"], len(order)),
                row["picture"],
                int(row["frame"] or 0),
            ),
        )
        storage.write_table(out / AREAS, found)
        for shard in shards:
            shutil.rmtree(shard)


# The work


class _Run:
    """Predicts pictures one after the other, several in flight."""

    def __init__(
        self,
        predictor: Predictor,
        outputs: Sequence[str],
        legend: bool,
        batch: int,
        workers: int,
        journal: Path,
    ):
        self.predictor, self.outputs, self.legend = predictor, outputs, legend
        self.batch, self.workers = batch, workers
        self.table = journal / AREAS

    def all(self, tasks: Sequence[_Task]) -> tuple[int, list[DataError]]:
        """How many pictures were predicted, and the errors of the others."""
        predicted, errors = 0, []
        stills = [task for task in tasks if not pictures.is_video(task.file)]
        videos = [task for task in tasks if pictures.is_video(task.file)]
        if stills:
            with Progress("predict", len(stills), "pictures") as progress:
                for task, found in self._pipelined(
                    stills, lambda task: self.predictor.read(task.file), self._write
                ):
                    if isinstance(found, DataError):
                        errors.append(found)
                    else:
                        self._note_areas([(task.name, "", *found)])
                        predicted += 1
                    progress.advance()
        for task in videos:
            try:
                predicted += self._video(task)
            except DataError as error:
                errors.append(error)
        return predicted, errors

    def _note_areas(self, rows: Sequence[tuple[str, Any, Size, np.ndarray]]) -> None:
        """Add rows to the table: from here on the picture is done."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self.table.is_file():
            names = self.predictor.labels.names
            writer.writerow(["picture", "frame", "height", "width", *names])
        for name, frame, (height, width), areas in rows:
            writer.writerow([name, frame, height, width, *areas.tolist()])
        try:
            with open(self.table, "a", encoding="utf-8", newline="") as file:
                file.write(text.getvalue())
        except OSError as error:
            raise storage.storage_error(error, self.table) from error

    def _pipelined(
        self,
        items: Iterable[Item],
        read: Callable[[Item], np.ndarray],
        finish: "Callable[[Item, np.ndarray, list[np.ndarray] | None], Made]",
    ) -> "Iterator[tuple[Item, Made | DataError]]":
        """(item, what `finish` made of it, or why it cannot be read), in order.

        `read` gives uint8 RGB [H, W, 3]; `finish` takes it with the logits of every
        network, or None where the picture is predicted in tiles. Both run in threads
        while the network is at work, but for tiles.
        """
        with ThreadPoolExecutor(self.workers) as pool:
            line = _Line(self.predictor, pool, items, read, finish, self.batch)
            try:
                yield from line.results()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    # A picture

    def _write(
        self, task: _Task, image: np.ndarray, logits: list[np.ndarray] | None
    ) -> tuple[Size, np.ndarray]:
        """Write the results of a picture; its size, and the pixels of each class."""
        size = (image.shape[0], image.shape[1])
        labels = self.predictor.labels
        areas = np.zeros(labels.num_classes, np.int64)
        with ExitStack() as files:
            writers = {
                name: _writer(
                    name,
                    files.enter_context(storage.new_file(path)),
                    size,
                    labels,
                    self.legend,
                )
                for name, path in task.targets.items()
            }
            for rows, ids, probabilities in self._bands(image, logits):
                areas += np.bincount(ids.ravel(), minlength=labels.num_classes)
                for name, writer in writers.items():
                    if name == "probabilities":
                        writer.write(probabilities)
                    elif name == "ids":
                        writer.write(ids)
                    elif name == "colour":
                        writer.write(labels.colourise(ids))
                    else:
                        writer.write(pictures.overlay(image[rows], ids, labels))
            for writer in writers.values():
                if isinstance(writer, _Overlay):
                    writer.finish(areas)
                else:
                    writer.close()
        return size, areas

    def _bands(
        self, image: np.ndarray, logits: list[np.ndarray] | None
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray | None]]:
        """(rows, class ids [n, W], probabilities float16 [n, W, C] if asked for)."""
        width, count = image.shape[1], self.predictor.labels.num_classes
        wants = "probabilities" in self.outputs
        ids = probabilities = np.empty((0, 0), np.uint8)
        for block in self.predictor.blocks(image, logits, wants):
            if block.columns.start == 0:
                height = block.rows.stop - block.rows.start
                ids = np.empty((height, width), np.uint8)
                if wants:
                    probabilities = np.empty((height, width, count), np.float16)
            ids[:, block.columns] = block.ids()
            if wants:
                probabilities[:, block.columns] = np.moveaxis(block.planes, 0, -1)
            if not block.is_last:
                continue
            # Fewer rows than a band of tiles, whose pictures would take as much memory
            # as a network.
            step = max(1, STRIP // width)
            for top in range(0, len(ids), step):
                part = slice(top, min(top + step, len(ids)))
                rows = slice(
                    block.rows.start + part.start, block.rows.start + part.stop
                )
                yield rows, ids[part], probabilities[part] if wants else None

    # A video

    def _video(self, task: _Task) -> int:
        """Predict a video; the number of its frames."""
        rate, count = pictures.frame_rate(task.file)
        labels, rows = self.predictor.labels, []
        drawn: np.ndarray | None = None

        def finish(number: int, image: np.ndarray, logits: list[np.ndarray] | None):
            size, wants = (image.shape[0], image.shape[1]), self.outputs
            bands = list(self._bands(image, logits))
            ids = np.concatenate([band[1] for band in bands])
            made: dict[str, np.ndarray] = {"ids": ids}
            if "colour" in wants:
                made["colour"] = labels.colourise(ids)
            if "overlay" in wants:
                painted = pictures.overlay(image, ids, labels)
                made["overlay"] = painted
            if "probabilities" in wants:
                found: list[Any] = [band[2] for band in bands]
                made["probabilities"] = np.concatenate(found)
            return size, made

        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(_video_writer(name, path, rate, labels))
                for name, path in task.targets.items()
            }
            progress = stack.enter_context(
                Progress(f"predict {task.name}", count, "frames")
            )
            stream = _Frames(pictures.frames(task.file))
            encoder = stack.enter_context(ThreadPoolExecutor(1))
            last: Future | None = None
            found: Any
            for number, found in self._pipelined(stream, stream.take, finish):
                if isinstance(found, DataError):
                    raise found
                size, made = found
                areas = np.bincount(made["ids"].ravel(), minlength=labels.num_classes)
                rows.append((task.name, number, size, areas))
                if "overlay" in made and self.legend:
                    if drawn is None:
                        drawn = pictures.legend(None, labels, size)
                    made["overlay"] = pictures.with_legend(made["overlay"], drawn)
                if last is not None:
                    last.result()
                last = encoder.submit(_write_frame, writers, made)
                progress.advance()
            if last is not None:
                last.result()
        self._note_areas(rows)
        return len(rows)


class _Line(Generic[Item, Made]):
    """Items on their way: being read, in the network, being finished."""

    def __init__(self, predictor, pool, items, read, finish, batch):
        self.predictor: Predictor = predictor
        self.pool: ThreadPoolExecutor = pool
        self.source: Iterator[Item] = iter(items)
        self.read, self.finish, self.batch = read, finish, batch
        self.reading: deque[tuple[Item, int, Future]] = deque()
        self.ending: deque[tuple[Item, int, Any]] = deque()
        self.next: Item | None = next(self.source, None)
        self.in_flight = 0  # pixels
        self.full: set = set()  # shapes of which a whole batch was predicted

    def results(self) -> "Iterator[tuple[Item, Made | DataError]]":
        while True:
            self._fill()
            if self.reading:
                self._predict(self._group())
            while self.ending and (
                len(self.ending) > 2 * self.batch
                or not isinstance(self.ending[0][2], Future)
                or self.ending[0][2].done()
                or not self.reading
            ):
                item, cost, made = self.ending.popleft()
                result = made.result() if isinstance(made, Future) else made
                self.in_flight -= cost
                yield item, result
                self._fill()
            if not self.reading and not self.ending and self.next is None:
                return

    def _fill(self) -> None:
        while self.next is not None and len(self.reading) < 2 * self.batch:
            cost = _pixels(self.next)
            if self.in_flight and self.in_flight + cost > PIXELS:
                return
            self.in_flight += cost
            self.reading.append(
                (self.next, cost, self.pool.submit(self._prepare, self.next))
            )
            self.next = next(self.source, None)

    def _prepare(self, item: Item):
        image = self.read(item)
        return image, self.predictor.inputs(image)

    def _group(self) -> list[tuple[Item, int, np.ndarray, list[np.ndarray]]]:
        """Pictures from the front that the network takes as one batch."""
        group: list = []
        while self.reading:
            item, cost, future = self.reading[0]
            try:
                image, inputs = future.result()
            except DataError as error:
                if group:
                    break
                self.reading.popleft()
                self.ending.append((item, cost, error))
                return []
            if inputs is None:
                if not group:
                    self.reading.popleft()
                    made = self.finish(item, image, None)
                    self.ending.append((item, cost, made))
                break
            shapes = [one.shape for one in inputs]
            pixels = max(shape[0] * shape[1] for shape in shapes)
            most = max(1, min(self.batch, BATCH_PIXELS // pixels))
            if group and (
                shapes != [one.shape for one in group[0][3]] or len(group) >= most
            ):
                break
            self.reading.popleft()
            group.append((item, cost, image, inputs))
            if len(group) == most:
                break
        return group

    def _predict(self, group) -> None:
        if not group:
            return
        shapes = tuple(one.shape for one in group[0][3])
        stacked = [np.stack(images) for images in zip(*(one[3] for one in group))]
        pixels = max(shape[0] * shape[1] for shape in shapes)
        most = max(1, min(self.batch, BATCH_PIXELS // pixels))
        if len(group) == most:
            self.full.add(shapes)
        elif shapes in self.full:  # a graph of another batch would be compiled anew
            missing = [(0, most - len(group)), (0, 0), (0, 0), (0, 0)]
            stacked = [np.pad(images, missing) for images in stacked]
        sizes = [image.shape[:2] for _, _, image, _ in group]
        logits = self.predictor.logits(stacked, sizes)
        for place, (item, cost, image, _) in enumerate(group):
            own = [one[place] for one in logits]
            made = self.pool.submit(self.finish, item, image, own)
            self.ending.append((item, cost, made))


def _pixels(item: Any) -> int:
    if isinstance(item, _Task):
        height, width = pictures.size_in_file(item.file)
        return height * width
    return 0  # frames are few at a time


class _Frames:
    """The numbers of a video's frames, decoded one ahead; `take` gives the pictures."""

    def __init__(self, frames: Iterator[np.ndarray]):
        self._frames, self._held = frames, {}

    def __iter__(self) -> Iterator[int]:
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(next, self._frames, None)
            number = 0
            while (frame := ahead.result()) is not None:
                number += 1
                self._held[number] = frame
                ahead = pool.submit(next, self._frames, None)
                yield number

    def take(self, number: int) -> np.ndarray:
        return self._held.pop(number)


# Files in the making


class _Overlay:
    """An overlay with its legend, whose height is known at the end only."""

    def __init__(self, file: BinaryIO, size: Size, labels: LabelSpec, legend: bool):
        self._file, self._size, self._labels, self._legend = file, size, labels, legend
        is_small = size[0] * size[1] <= IN_MEMORY
        self._kept: list[np.ndarray] | None = [] if is_small else None
        self._writer = None if is_small else PngWriter(file, size)

    def write(self, rows: np.ndarray) -> None:
        if self._kept is not None:
            self._kept.append(rows)
        else:
            assert self._writer is not None
            self._writer.write(rows)

    def finish(self, areas: np.ndarray) -> None:
        """Draw the legend from the pixels of each class, and end the file."""
        drawn = pictures.legend(areas, self._labels, self._size)
        if self._kept is not None:
            whole = np.concatenate(self._kept)
            if self._legend:
                whole = pictures.with_legend(whole, drawn)
            writer = PngWriter(self._file, (whole.shape[0], whole.shape[1]))
            writer.write(whole)
            writer.close()
            return
        assert self._writer is not None
        if self._legend:
            self._writer.write(drawn[:, : self._size[1]])
            self._writer.grow(self._size[0] + len(drawn))
        self._writer.close()


def _writer(
    name: str, file: BinaryIO, size: Size, labels: LabelSpec, legend: bool
) -> Any:
    if name == "ids":
        return PngWriter(file, size, labels.palette)
    if name == "colour":
        return PngWriter(file, size)
    if name == "probabilities":
        return ArrayWriter(file, (*size, labels.num_classes))
    return _Overlay(file, size, labels, legend)


class _FrameFolder:
    """A folder of a file per frame; whole when the block ends well."""

    def __init__(self, name: str, path: Path, labels: LabelSpec):
        self._name, self._labels, self._count = name, labels, 0
        self._publishing = storage.new_folder(path)

    def __enter__(self) -> "_FrameFolder":
        self._folder = self._publishing.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._publishing.__exit__(*error)

    def write(self, frame: np.ndarray) -> None:
        self._count += 1
        stem = f"{self._count:06d}"
        try:
            if self._name == "ids":
                content = pictures.ids_png(frame, self._labels)
                (self._folder / f"{stem}.png").write_bytes(content)
            else:
                np.save(self._folder / f"{stem}.npy", frame)
        except OSError as error:
            raise storage.storage_error(error, self._folder) from error


class _VideoFile:
    """An MP4 file; whole when the block ends well."""

    def __init__(self, path: Path, rate: float):
        self._path, self._rate = path, rate
        name = f"{storage.TEMPORARY}{os.getpid()}-{path.name}"
        self._temporary = path.with_name(name)

    def __enter__(self) -> "_VideoFile":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pictures.VideoWriter(self._temporary, self._rate)
        return self

    def __exit__(self, kind, *_) -> None:
        self._writer.close()
        if kind is None:
            os.replace(self._temporary, self._path)
        else:
            self._temporary.unlink(missing_ok=True)

    def write(self, frame: np.ndarray) -> None:
        self._writer.write(frame)


def _video_writer(name: str, path: Path, rate: float, labels: LabelSpec) -> Any:
    if name in ("ids", "probabilities"):
        return _FrameFolder(name, path, labels)
    return _VideoFile(path, rate)


def _write_frame(writers: Mapping[str, Any], made: Mapping[str, np.ndarray]) -> None:
    for name, writer in writers.items():
        writer.write(made[name])
