"""SURREAL: synthetic people, 24 body parts, 67,582 clips of 240 x 320 pixels.

Varol et al. 2017; BODY section 2 says what the thesis made of it: frames spread over
the poses, cropped to the person, with the head's label repaired. Images become 320 x
320 pixels unless --size says otherwise. See datasets/surreal.md.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from keras_seg import command_line
from keras_seg.data import raw, workers
from keras_seg.data.prepared import PARTS_SHEET, SELECTION, Prepared, sha256
from keras_seg.data.surreal import clips as surreal_clips
from keras_seg.data.surreal import frames as surreal_frames
from keras_seg.data.surreal import index as surreal_index
from keras_seg.data.surreal import pose_selection
from keras_seg.data.surreal import selection as surreal_selection
from keras_seg.data.surreal.clips import SPLITS, Clip
from keras_seg.data.surreal.frames import SelectedClip
from keras_seg.data.surreal.head_repair import REPAIRS
from keras_seg.data.surreal.parts_sheet import write_parts_sheet
from keras_seg.data.surreal.selection import SelectedFrame
from keras_seg.data.writer import Options, write_prepared
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import LabelSpec

LABELS = LabelSpec(
    names=(
        *("background", "hips", "leftUpLeg", "rightUpLeg", "spine"),
        *("leftLeg", "rightLeg", "spine1", "leftFoot", "rightFoot", "spine2"),
        *("leftToeBase", "rightToeBase", "neck", "leftShoulder", "rightShoulder"),
        *("head", "leftArm", "rightArm", "leftForeArm", "rightForeArm"),
        *("leftHand", "rightHand", "leftHandIndex1", "rightHandIndex1"),
    ),
    palette=(
        *((115, 139, 163), (217, 83, 25), (237, 177, 32), (126, 47, 91)),
        *((119, 172, 48), (77, 190, 238), (131, 196, 185), (237, 220, 103)),
        *((177, 173, 203), (157, 196, 106), (119, 165, 196), (235, 167, 91)),
        *((166, 206, 98), (175, 119, 176), (202, 202, 202), (190, 219, 183)),
        *((234, 191, 213), (237, 237, 166), (94, 79, 162), (158, 1, 66)),
        *((243, 212, 167), (254, 210, 123), (50, 131, 189), (152, 214, 164)),
        (226, 157, 137),
    ),
    flip_pairs=(
        *((2, 3), (5, 6), (8, 9), (11, 12), (14, 15)),
        *((17, 18), (19, 20), (21, 22), (23, 24)),
    ),
)
# The groups of BODY's tables 2 and 5, left and right together; a group's accuracy is
# the mean of its members' (specification 4.4).
GROUPS = {
    "Background": (0,),
    "Head": (16,),
    "Torso": (1, 4, 7, 10),
    "U.Legs": (2, 3),
    "L.Legs": (5, 6),
    "Neck": (13,),
    "Shoulder": (14, 15),
    "U.Arms": (17, 18),
    "L.Arms": (19, 20),
    "Feets": (8, 9),
    "Hands": (21, 22),
    "Fingers": (23, 24),
    "Toes": (11, 12),
}
# SURREAL's own 14 parts: the new id of each of the 25.
SURREAL14 = (
    *(0, 2, 12, 9, 2, 13, 10, 2, 14, 11, 2, 14, 11),
    *(2, 2, 2, 1, 6, 3, 7, 4, 8, 5, 8, 5),
)
_NAMES14 = (
    *("background", "head", "torso"),
    *("rightUpperArm", "rightLowerArm", "rightHand"),
    *("leftUpperArm", "leftLowerArm", "leftHand"),
    *("rightUpperLeg", "rightLowerLeg", "rightFoot"),
    *("leftUpperLeg", "leftLowerLeg", "leftFoot"),
)
LABELS14 = LabelSpec(
    names=_NAMES14,
    # Each has the colour of the first of its parts.
    palette=tuple(
        LABELS.palette[SURREAL14.index(class_id)] for class_id in range(len(_NAMES14))
    ),
    flip_pairs=((3, 6), (4, 7), (5, 8), (9, 12), (10, 13), (11, 14)),
)
MERGES = {
    "none": (LABELS, tuple(range(LABELS.num_classes))),
    "surreal14": (LABELS14, SURREAL14),
}
EXECUTORS = {"processes": workers.in_processes, "ray": workers.on_ray}

SIZE = (320, 320)


@dataclass(frozen=True)
class Settings:
    """What the preparation of SURREAL can be told beside `Options`.

    Attributes:
        frames: so many of train, val and test; None takes the whole pool, 0 leaves
            the split out.
        stride: percent of overlap of the clips that are used.
        leaky_test: test may hold clips of val's sequences.
        exclude: subjects or sequences that are left out.
        every: only each so-manieth frame of a clip can be chosen, or each in fewer,
            as many as the wanted frames need.
        method: one of `pose_selection.METHODS`.
        clusters: of train, val and test.
        seed: of the selection.
        selection: a selection.csv to use instead of choosing frames, or None.
        repair: one of `head_repair.REPAIRS`.
        margin: what is added to the longer side of the person's box, as a share.
        merge: one of `MERGES`.
    """

    frames: tuple[int | None, ...] = (90_000, 15_000, 15_000)
    stride: int = 50
    leaky_test: bool = False
    exclude: tuple[str, ...] = ()
    every: int = 5
    method: str = "kmeans"
    clusters: tuple[int, ...] = (1000, 200, 200)
    seed: int = 0
    selection: Path | None = None
    repair: str = "thesis"
    margin: float = 0.2
    merge: str = "none"


def add_arguments(parser, defaults: Settings = Settings()) -> None:
    """The options of the preparation, in the order of its steps."""
    steps = parser.add_argument_group("index")
    steps.add_argument(
        "--stride",
        type=int,
        choices=(30, 50, 70),
        default=defaults.stride,
        help="overlap of the clips in percent, as their files say it; default "
        "%(default)s, as BODY",
    )
    steps.add_argument(
        "--leaky-test",
        action="store_true",
        help="leave only val's clips out of test, not val's sequences: neighbouring "
        "clips overlap, so test then shows poses of val",
    )
    steps.add_argument(
        "--exclude",
        nargs="+",
        default=defaults.exclude,
        metavar="SUBJECT",
        help="leave out subjects (18) or their trials (143_21)",
    )
    steps = parser.add_argument_group("selection")
    steps.add_argument(
        "--frames",
        nargs=3,
        type=_frames,
        default=defaults.frames,
        metavar=("TRAIN", "VAL", "TEST"),
        help="how many, or all; 0 leaves the split out; default "
        + " ".join("all" if count is None else str(count) for count in defaults.frames),
    )
    steps.add_argument(
        "--every",
        type=command_line.positive_int,
        default=defaults.every,
        metavar="N",
        help="choose among each Nth frame of a clip, or among more where these are too "
        "few; default %(default)s",
    )
    steps.add_argument(
        "--method",
        choices=pose_selection.METHODS,
        default=defaults.method,
        help="kmeans: from each cluster of poses in proportion to the root of its "
        "size; farthest: equally many, far from each other; default %(default)s",
    )
    steps.add_argument(
        "--clusters",
        nargs=3,
        type=command_line.positive_int,
        default=defaults.clusters,
        metavar=("TRAIN", "VAL", "TEST"),
        help="default " + " ".join(map(str, defaults.clusters)),
    )
    steps.add_argument(
        "--seed", type=command_line.natural_int, default=defaults.seed, metavar="N"
    )
    steps.add_argument(
        "--selection",
        type=Path,
        metavar="FILE",
        help=f"take the frames that the {SELECTION} of another preparation lists",
    )
    steps = parser.add_argument_group("frames")
    steps.add_argument(
        "--repair",
        choices=tuple(REPAIRS),
        default=defaults.repair,
        help="of the head's label: thesis: all but its largest piece, as BODY; zones: "
        "only specks on chest and pelvis; default %(default)s",
    )
    steps.add_argument(
        "--margin",
        type=_margin,
        default=defaults.margin,
        metavar="SHARE",
        help="added to the longer side of the person's box; default %(default)s",
    )
    steps.add_argument(
        "--merge",
        choices=tuple(MERGES),
        default=defaults.merge,
        help="surreal14: the 14 parts SURREAL's authors train on; default: all 24",
    )
    steps = parser.add_argument_group("work")
    steps.add_argument(
        "--executor",
        choices=tuple(EXECUTORS),
        default="processes",
        help="ray: on the cluster $RAY_ADDRESS; default %(default)s on this machine",
    )


def _frames(text: str) -> int | None:
    return None if text == "all" else command_line.natural_int(text)


def _margin(text: str) -> float:
    try:
        margin = float(text)
    except ValueError:
        margin = -1.0
    if not 0 <= margin <= 2:
        raise argparse.ArgumentTypeError(f"{text}; expected a number from 0 to 2")
    return margin


def prepare(
    src: str | Path,
    out: str | Path,
    options: Options,
    executor: str = "processes",
    dataset: str = "surreal",
    **settings,
) -> tuple[Prepared, bool]:
    """Raw SURREAL -> prepared folder; see `keras_seg.data.writer.write_prepared`.

    The folder also holds selection.csv, the chosen frames, and samples.png.

    Args:
        src: the folder that contains cmu.
        executor: one of `EXECUTORS`; never changes the result.
        dataset: the name in meta.json.
        settings: fields of `Settings`.
    """
    settings = Settings(**settings)
    size = options.size or SIZE
    if size[0] != size[1]:
        raise UsageError("--size", f"{size[0]} {size[1]}", "a square, as the crop is")
    options = replace(options, size=size)
    # Absolute: workers on other machines have another working directory.
    src = Path(os.path.abspath(raw.source_folder(src)))
    clips = [
        clip
        for clip in surreal_clips.find_clips(src)
        if not surreal_index.excluded(clip.sequence, settings.exclude)
    ]
    each = EXECUTORS[executor]
    labels, merge = MERGES[settings.merge]
    prepared, written = write_prepared(
        out,
        dataset,
        labels,
        partial(_find_items, src, clips, settings, options, each),
        surreal_frames.Conversion(
            src.resolve(), size, settings.margin, settings.repair, merge
        ),
        options,
        _request(src, clips, settings),
        unit="clips",
        each=each,
    )
    if written:
        _tell_left_out(prepared)
    if not (prepared.folder / PARTS_SHEET).exists():  # also after a kill just before it
        write_parts_sheet(prepared, prepared.folder / PARTS_SHEET)
    return prepared, written


def _request(src: Path, clips: Sequence[Clip], settings: Settings) -> dict:
    """What decides the result, as JSON values."""
    selection = settings.selection
    return {
        **asdict(settings),
        "exclude": sorted(settings.exclude),
        "selection": None if selection is None else sha256(selection),
        "source": surreal_clips.fingerprint(src, clips),
    }


def _find_items(
    src: Path,
    clips: Sequence[Clip],
    settings: Settings,
    options: Options,
    each: Callable[..., Iterator],
    stage: Path,
) -> list[SelectedClip]:
    """Index and selection: the clips to convert. Writes selection.csv to the stage."""
    bad: dict[Clip, DataError] = {}
    if settings.selection is not None:
        rows = surreal_selection.read_selection(settings.selection, src, clips)
    else:
        indexed, bad = surreal_index.index_clips(
            clips,
            src.resolve(),
            settings.stride,
            lambda work, items: each(work, items, options.workers),
        )
        if len(bad) > options.skip_bad:
            # Refused anyway: the list of what is bad, without hours of conversion.
            return [SelectedClip(clip, (), bad.get(clip)) for clip in clips]
        rows = surreal_selection.select_frames(
            surreal_index.pools(indexed, settings.leaky_test),
            dict(zip(SPLITS, settings.frames)),
            settings.every,
            dict(zip(SPLITS, settings.clusters)),
            settings.seed,
            settings.method,
        )
    rows = raw.first_of_each_split(rows, options.limit)
    _refuse_duplicates(rows)
    surreal_selection.write_selection(stage / SELECTION, src, rows)
    frames: dict[Clip, list[int]] = {}
    for row in rows:
        frames.setdefault(row.clip, []).append(row.frame)
    items = [SelectedClip(clip, tuple(numbers)) for clip, numbers in frames.items()]
    return items + [SelectedClip(clip, (), error) for clip, error in bad.items()]


def _refuse_duplicates(rows: Sequence[SelectedFrame]) -> None:
    """Before hours of conversion, and not after them."""
    for id_, count in Counter((row.split, row.id) for row in rows).items():
        if count > 1:
            raise DataError("id", f"{'/'.join(id_)} {count} times", "unique ids")


def _tell_left_out(prepared: Prepared) -> None:
    chosen = surreal_selection.count_selected(prepared.folder / SELECTION)
    for split, count in chosen.items():
        missing = count - len(prepared.samples(split))
        if missing:
            print(
                f"{split}: {missing} of {count} chosen frames left out: fewer than "
                f"{surreal_frames.FEWEST_BODY_PIXELS} pixels of a person, or in a clip "
                "that was skipped",
                file=sys.stderr,
            )
