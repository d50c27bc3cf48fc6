"""What class ids mean: the classes of a dataset, and what a head is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_seg.errors import UsageError

IGNORE_ID = 255  # void, on disk and in tensors, for every dataset


def has_background(names: Sequence[str]) -> bool:
    """Whether class 0 is the background, by its name."""
    return names[0].lower() == "background"


@dataclass(frozen=True)
class LabelSpec:
    """The classes of a dataset; ids are positions in `names`, from 0.

    Attributes:
        names: class names in id order, 1 to 255 of them, all different and printable.
        palette: one (red, green, blue) triple in 0..255 per class.
        flip_pairs: pairs of ids that change places when an image is mirrored
            (left shoe, right shoe); empty where no class knows left from right.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self):
        if not 1 <= len(self.names) <= IGNORE_ID:
            raise UsageError(
                f"There are {len(self.names)} classes; there must be 1 to {IGNORE_ID}."
            )
        for name in self.names:
            if not (name.strip() and name.isprintable()):
                raise UsageError(
                    f"The class name {name!r} is empty or has characters that cannot "
                    "be printed."
                )
        if len(set(self.names)) != len(self.names):
            raise UsageError(f"Class names repeat: {', '.join(self.names)}.")
        if len(self.palette) != len(self.names):
            raise UsageError(
                f"The palette has {len(self.palette)} colours for {len(self.names)} "
                "classes."
            )
        for colour in self.palette:
            if len(colour) != 3 or not all(0 <= level <= 255 for level in colour):
                raise UsageError(
                    f"The palette has the colour {colour}; it must be three levels of "
                    "0 to 255."
                )
        paired = [class_id for pair in self.flip_pairs for class_id in pair]
        if len(set(paired)) != len(paired) or not all(
            0 <= class_id < len(self.names) for class_id in paired
        ):
            raise UsageError(
                f"The flip pairs are {self.flip_pairs}; each class id may be in one "
                "pair at most."
            )

    @property
    def num_classes(self) -> int:
        """How many classes there are, the ignored id not counted."""
        return len(self.names)

    def flip_table(self) -> np.ndarray:
        """uint8 [256]: the id each id becomes in a mirrored image."""
        table = np.arange(256, dtype=np.uint8)
        for left, right in self.flip_pairs:
            table[left], table[right] = right, left
        return table

    def colourise(self, label: np.ndarray) -> np.ndarray:
        """Class ids [...] to RGB uint8 [..., 3]; the ignored are black."""
        return colourise(label, self.palette)


@dataclass(frozen=True)
class Head:
    """One supervised output of a network: what it is trained on, and how much.

    Attributes:
        loss_weight: the head's factor in the total loss.
        target: "labels" (class ids) or "heatmaps" (one Gaussian for each joint).
        lookup: for "labels", None (the dataset's own ids) or a tuple [C] that maps
            each dataset id to the head's id (coarse-to-fine targets).
        stride: heatmaps have 1 / stride of the input's height and width.
    """

    loss_weight: float = 1.0
    target: str = "labels"
    lookup: tuple[int, ...] | None = None
    stride: int = 1


def colourise(label: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Class ids [...] to RGB uint8 [..., 3]; ids beyond the palette are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = palette
    return np.take(table, label, axis=0)
