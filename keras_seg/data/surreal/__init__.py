"""SURREAL: synthetic people, 24 body parts, 67,582 clips of 240 x 320 pixels.

Varol et al. 2017. BODY section 2 describes what the thesis made of it: frames spread
over the poses, cropped to the person, with the head's label repaired. Images become
320 x 320 pixels unless --size asks for another size. See datasets/surreal.md.
"""

import os
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from keras_seg import storage
from keras_seg.data import raw
from keras_seg.data.prepared import PARTS_SHEET, Prepared
from keras_seg.data.surreal import clips, settings
from keras_seg.data.surreal.frames import Conversion
from keras_seg.data.surreal.index import excluded
from keras_seg.data.surreal.parts import GROUPS, LABELS, MERGES
from keras_seg.data.surreal.parts_sheet import write_parts_sheet
from keras_seg.data.surreal.selection import find_items, note_left_out
from keras_seg.data.surreal.settings import EXECUTORS, Settings
from keras_seg.data.writer import Options, write_prepared
from keras_seg.errors import UsageError

__all__ = ["GROUPS", "LABELS", "OPTIONS", "SIZE", "Settings", "prepare"]

SIZE = (320, 320)
OPTIONS = settings.options()


def prepare(
    src: str | Path,
    out: str | Path,
    options: Options,
    executor: str = "processes",
    dataset: str = "surreal",
    **chosen,
) -> tuple[Prepared, bool]:
    """Prepare the folder that contains cmu; `chosen` are fields of `Settings`.

    The prepared folder also has selection.csv, the chosen frames, and samples.png.
    """
    wanted = Settings(**chosen)
    size = options.size or SIZE
    if size[0] != size[1]:
        raise UsageError(
            f"--size {size[0]} {size[1]} is not a square, which the crop is."
        )
    options = replace(options, size=size)
    # Absolute: workers on other machines have another working directory.
    src = Path(os.path.abspath(raw.source_folder(src)))
    found = [
        clip
        for clip in clips.find_clips(src)
        if not excluded(clip.sequence, wanted.exclude)
    ]
    each = EXECUTORS[executor]
    labels, merge = MERGES[wanted.merge]
    selection = wanted.selection
    if selection is not None and not selection.is_file():
        raise UsageError(f"--selection {selection} is not a file.")
    request = {
        **asdict(wanted),
        "exclude": sorted(wanted.exclude),
        "selection": None if selection is None else storage.sha256(selection),
        "source": clips.fingerprint(src, found),
    }
    prepared, written = write_prepared(
        out,
        dataset,
        labels,
        partial(find_items, src, found, wanted, options, each),
        Conversion(src.resolve(), size, wanted.margin, wanted.repair, merge),
        options,
        request,
        unit="clips",
        each=each,
    )
    if written:
        note_left_out(prepared)
    if not (prepared.folder / PARTS_SHEET).exists():  # also after a kill just before it
        write_parts_sheet(prepared, prepared.folder / PARTS_SHEET)
    return prepared, written
