"""Sheets: pictures of the data that belong to a stage's question.

They show what a network learns beside or instead of the plain labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from keras_seg.data import targets
from keras_seg.plots import Colour, legend_entries, paint
from keras_seg.report.blocks import Details, Paragraph, Pictures

JOINT_COLOUR, CENTROID_COLOUR = (255, 170, 0), (40, 190, 255)
LONG_SIDE = 420  # of a picture that is drawn upon, px


@dataclass(frozen=True)
class Example:
    """A labelled image to be shown."""

    id: str
    image: np.ndarray  # uint8 RGB [H, W, 3]
    label: np.ndarray  # uint8 [H, W], 255 = ignored
    joints: np.ndarray | None = None  # float32 [24, 2], (x, y) in px, NaN: missing


def hierarchy_sheet(
    examples: Sequence[Example],
    names: Sequence[str],
    palette: Sequence[Colour],
    lookups: Sequence[Sequence[int] | None],
    place: str = "",
) -> Details | str:
    """The truth at every level of a coarse-to-fine labelling (BODY Fig. 14).

    `lookups` are those of `runs.evaluate.label_levels`. A coarse class has the colour
    of its first one. Why there is no sheet, a sentence, where there are no levels.
    """
    if not lookups:
        return "No arm of the stage learns labels from coarse to fine."
    levels = [lookup or tuple(range(len(names))) for lookup in lookups]
    needed = max(map(len, levels))
    if needed != len(names):
        return f"It needs {needed} classes; the data have {len(names)}."
    rows = []
    for example in examples:
        pictures = [example.image]
        for level in levels:
            colours = [palette[level.index(coarse)] for coarse in level]
            pictures.append(paint(example.label, colours))
        rows.append((example.id, pictures))
    note = "The truth from coarse to fine. Parts of one coarse class share a colour."
    header = ["image", *(f"{len(set(level))} classes" for level in levels)]
    legend = legend_entries([each.label for each in examples], palette, names)
    grid = Pictures(place, header, rows, legend)
    title = "What each stack of the network learns"
    return Details(title, [Paragraph(note, "note"), grid])


def joint_sheet(
    examples: Sequence[Example],
    names: Sequence[str],
    palette: Sequence[Colour] = (),
    lookups: Sequence[Sequence[int] | None] = (),
    place: str = "",
) -> Details | str:
    """The data's joints against the centroids of the parts (BODY Fig. 16).

    Why there is no sheet, a sentence, where the data are not SURREAL's.
    """
    if len(names) != targets.PARTS + 1:
        return f"It needs SURREAL's 25 classes; the data have {len(names)}."
    rows, distances = [], []
    for example in examples:
        joints, centroids = example.joints, targets.part_centroids(example.label)
        if joints is None:
            return "It needs 24 joints for each image; the data have none."
        distances.append(np.hypot(*(joints - centroids).T) / len(example.label))
        joint_dots, dots = (joints, JOINT_COLOUR), (centroids, CENTROID_COLOUR)
        marks = ((), (joint_dots,), (dots,), (joint_dots, dots))
        rows.append((example.id, [marked(example.image, *each) for each in marks]))
    far = np.concatenate(distances)
    far = far[np.isfinite(far)]
    note = "A joint is at the end of its part, the centroid in the middle."
    if far.size:
        note += f" The median distance is {100 * np.median(far):.1f} % of the height."
    header = ["image", "joints", "centroids", "both, joined"]
    legend = [("joint", JOINT_COLOUR), ("centroid of the part", CENTROID_COLOUR)]
    grid = Pictures(place, header, rows, legend, photographs=len(header))
    title = "Joints and centroids of the parts"
    return Details(title, [Paragraph(note, "note"), grid])


SHEETS = {"hierarchy": hierarchy_sheet, "joints": joint_sheet}


def marked(image: np.ndarray, *marks: tuple[np.ndarray, Colour]) -> np.ndarray:
    """An image enlarged to about LONG_SIDE with dots on it; dots of two sets joined.

    `marks` are (places (x, y) in pixels [N, 2], NaN for none; colour).
    """
    zoom = max(1, round(LONG_SIDE / max(image.shape[:2])))
    height, width = (side * zoom for side in image.shape[:2])
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    sets = [(zoom * (np.asarray(places) + 0.5), colour) for places, colour in marks]
    if len(sets) == 2:
        for ends in np.stack([sets[0][0], sets[1][0]], axis=1):
            if np.isfinite(ends).all():
                draw.line(ends.ravel().tolist(), fill=(255, 255, 255), width=2)
    radius = 4
    for places, colour in sets:
        for x, y in places[np.isfinite(places).all(axis=1)]:
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, fill=colour, outline=(0, 0, 0))
    return np.asarray(picture)
