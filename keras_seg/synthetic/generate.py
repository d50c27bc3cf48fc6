"""Whole datasets of clips: many processes, restartable, the same bytes every time.

    <out>/cmu/{train,val,test}/run0/<sequence>/<sequence>_c0001.mp4 ...
    <out>/generation.json     what was asked for

A clip's folder appears under its name when it is whole. Another call with the same
settings keeps the clips that are there and adds the others.
"""

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from keras_seg.errors import DataError, LockedError, UsageError

FORMAT = 2  # raised when equal settings begin to give other clips
MOST_CLIPS = 99_999  # of a split: names have five digits
RUN = "run0"  # SURREAL's folder of the clips with stride 50
SETTINGS_FILE = "generation.json"
PARTIAL = ".partial-"  # prefix of the folder of a clip that is being written


@dataclass(frozen=True)
class Settings:
    """What decides the content of a clip, beside its split and index.

    Attributes:
        seed: int, at least 0.
        frames: int, frames of every clip, at least 1.
        depth: bool. Write the depth images too (three quarters of all bytes).
    """

    seed: int = 0
    frames: int = 20
    depth: bool = False
    format: int = FORMAT


def generate(
    out: Path,
    clips: Sequence[int],
    settings: Settings,
    workers: int = 1,
    done: Callable[[int], None] = lambda frames: None,
) -> None:
    """Makes the clips that are not there yet.

    Args:
        out: the folder that shall hold cmu/.
        clips: how many for train, val and test.
        workers: processes; what is written does not depend on it.
        done: called with a number of frames whenever a clip is there.

    Raises:
        UsageError: `out` holds clips made with other settings, or more clips.
        LockedError: another process is writing there.
    """
    from keras_seg.synthetic.clip import SPLITS

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        _check_settings(out, settings)
        missing = []
        for split, count in zip(SPLITS, clips):
            folder = out / "cmu" / split / RUN
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob(f"{PARTIAL}*"):
                shutil.rmtree(leftover)
            present = _present(folder, split)
            if max(present, default=-1) >= count:
                raise UsageError(
                    "number of clips",
                    f"{count} for {split}",
                    f"at least the {max(present) + 1} that {out} holds, or another "
                    "folder",
                )
            done(len(present) * settings.frames)
            missing += [
                (folder, split, index, settings)
                for index in range(count)
                if index not in present
            ]
        for _ in _each(missing, min(workers, len(missing))):
            done(settings.frames)


def _each(tasks: list[tuple], workers: int):
    """Yields once for every task that is done."""
    if workers <= 1:
        for task in tasks:
            yield _make(*task)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_prepare_worker
    ) as pool:
        futures = [pool.submit(_make, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _prepare_worker() -> None:
    """Ctrl-C is the parent's to handle; without a parent there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch = threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True)
    watch.start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _make(folder: Path, split: str, index: int, settings: Settings) -> None:
    """Makes one clip; its folder is renamed into place when it is complete."""
    import cv2

    from keras_seg.synthetic import clip, writer

    cv2.setNumThreads(1)  # the processes are the parallelism
    made = clip.make_clip(
        settings.seed, split, index, settings.frames, with_depth=settings.depth
    )
    partial = folder / f"{PARTIAL}{split}{index:05d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        writer.write_clip(partial, made)
        os.rename(partial, folder / made.sequence)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _present(folder: Path, split: str) -> set[int]:
    """The indices of the clips in a folder, from names like train00012_walk."""
    names = (path.name for path in folder.iterdir() if path.is_dir())
    numbers = (name.removeprefix(split).split("_")[0] for name in names)
    return {int(number) for number in numbers if number.isdigit()}


def _check_settings(out: Path, settings: Settings) -> None:
    """Refuses a folder that holds other clips; notes the settings in an empty one."""
    path = out / SETTINGS_FILE
    wanted = asdict(settings)
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except ValueError:
            raise DataError(
                str(path), "not JSON", "the file as it was written"
            ) from None
        for name, value in wanted.items():
            if found.get(name) != value:
                raise UsageError(
                    f"{name} of {out}", value, f"{found.get(name)}, or another folder"
                )
        return
    if any((out / "cmu").glob("*/*/*")):
        raise UsageError(
            str(out), f"clips without {SETTINGS_FILE}", "an empty or a new folder"
        )
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(wanted, indent=1) + "\n")
    os.replace(partial, path)


@contextmanager
def _locked(out: Path):
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                str(out), "another process is writing there", "one at a time"
            ) from None
        yield
