"""Small raw datasets in the layouts of the real ones, made of random pixels.

Each function writes one under a folder and returns the class ids it put there:
{(split, id): uint8 [H, W] with 255 = ignore}, which is what preparation has to give.
"""

from pathlib import Path

import numpy as np
from PIL import Image


def blobs(rng, size: tuple[int, int], ids) -> np.ndarray:
    """uint8 [H, W]: patches of 4 x 4 px of the given ids, as masks look."""
    height, width = size
    coarse = rng.choice(np.array(ids, np.uint8), (-(-height // 4), -(-width // 4)))
    return coarse.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]


def photo(rng, size: tuple[int, int]) -> np.ndarray:
    """uint8 RGB [H, W, 3], smooth and noisy."""
    ramp = np.add.outer(np.arange(size[0]), np.arange(size[1])) % 200
    return (ramp[..., None] + rng.integers(0, 50, (*size, 3))).astype(np.uint8)


def save(array: np.ndarray, path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def camvid(root: Path, counts=(("train", 5), ("val", 3)), size=(24, 36)) -> dict:
    """The SegNet tutorial's tree and lists, with their absolute prefix."""
    rng = np.random.default_rng(1)
    expected = {}
    for split, count in counts:
        lines = []
        for number in range(count):
            name = f"0001TP_{number:06d}"
            raw = blobs(rng, size, range(12))
            save(photo(rng, size), root / split / f"{name}.png")
            save(raw, root / f"{split}annot" / f"{name}.png")
            lines.append(
                f"/SegNet/CamVid/{split}/{name}.png "
                f"/SegNet/CamVid/{split}annot/{name}.png\n"
            )
            expected[split, name] = np.where(raw == 11, 255, raw)
        (root / f"{split}.txt").write_text("".join(lines))
    return expected
