"""Whole datasets of clips: parallel, resumable, the same bytes every time.

    <out>/cmu/{train,val,test}/run0/<sequence>/<sequence>_c0001.mp4 ...
    <out>/generation.json     the settings

A clip's folder gets its name once it is complete. Calling again with the same settings
keeps the existing clips and adds the missing ones.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import starmap
from pathlib import Path

from keras_seg import command_line, storage
from keras_seg.errors import DataError, StorageError, UsageError

FORMAT = 2  # raised when the same settings begin to give other clips
MAX_CLIPS = 99_999  # of a split: names have five digits
RUN = "run0"  # SURREAL's folder of the clips with stride 50
SETTINGS_FILE = "generation.json"


@dataclass(frozen=True)
class Settings:
    """What determines a clip, besides its split and index."""

    seed: int = 0
    frames: int = 20  # of every clip
    depth: bool = False  # write depth images too (three quarters of all bytes)
    format: int = FORMAT


def generate(
    out: Path,
    clips: Sequence[int],
    settings: Settings,
    workers: int = 1,
    advance: Callable[[int], object] = lambda frames: None,
) -> None:
    """Make the missing clips.

    Args:
        out: the folder that will hold cmu/.
        clips: their numbers for train, val and test.
        advance: called with a number of frames whenever clips are complete.

    Raises:
        UsageError: `out` holds clips made with other settings, or more clips.
    """
    from keras_seg.synthetic.clip import SPLITS

    with storage.lock(out):
        folders = {split: out / "cmu" / split / RUN for split in SPLITS}
        present = {split: _indices(folders[split], split) for split in SPLITS}
        counts = dict(zip(SPLITS, clips))
        _check_counts(out, present, counts)
        _check_settings(out, settings)
        for folder in (out, *folders.values()):
            storage.sweep(folder)
        if not (out / SETTINGS_FILE).exists():
            storage.write_json(out / SETTINGS_FILE, asdict(settings))
        advance(sum(map(len, present.values())) * settings.frames)
        tasks = [
            (folders[split], split, index, settings)
            for split in SPLITS
            for index in range(counts[split])
            if index not in present[split]
        ]
        for _ in _complete(tasks, min(workers, len(tasks))):
            advance(settings.frames)


def _indices(folder: Path, split: str) -> set[int]:
    """The indices of the clips in a folder, from names like train00012_walk."""
    names = (path.name for path in folder.glob(f"{split}*") if path.is_dir())
    numbers = (name.removeprefix(split).split("_")[0] for name in names)
    return {int(number) for number in numbers if number.isdigit()}


def _check_counts(
    out: Path, present: Mapping[str, set[int]], counts: Mapping[str, int]
) -> None:
    for split, indices in present.items():
        needed = max(indices, default=-1) + 1
        if needed > counts[split]:
            raise UsageError(
                f"{out} holds {needed} clips of {split}, more than {counts[split]}. "
                f"Ask for at least {needed} or use another folder."
            )
    if any(present.values()) and not (out / SETTINGS_FILE).exists():
        raise UsageError(
            f"{out} holds clips but no {SETTINGS_FILE}. Use another folder."
        )


def _check_settings(out: Path, settings: Settings) -> None:
    path = out / SETTINGS_FILE
    if not path.exists():
        return
    try:
        found = storage.read_json(path)
    except StorageError as error:
        raise DataError(
            f"{path} is damaged. Delete {out} and generate its clips again."
        ) from error
    for name, value in asdict(settings).items():
        if found.get(name) != value:
            raise UsageError(
                f"The clips in {out} have the {name} {found.get(name)}, not {value}. "
                "Use the same settings or another folder."
            )


def _complete(tasks: Sequence[tuple], workers: int) -> Iterator[None]:
    """Run the tasks, yielding after each."""
    if workers <= 1:
        yield from starmap(_make_clip, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _prepare_worker) as pool:
        yield from pool.map(_make_clip, *zip(*tasks))  # an error cancels the others


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    command_line.end_with_parent(then="exit")


def _make_clip(folder: Path, split: str, index: int, settings: Settings) -> None:
    import cv2

    from keras_seg.synthetic import clip, writer

    cv2.setNumThreads(1)  # the processes are the parallelism
    made = clip.make_clip(
        settings.seed, split, index, settings.frames, with_depth=settings.depth
    )
    with storage.new_folder(folder / made.sequence, made.rgb.nbytes) as new:
        writer.write_clip(new, made)
