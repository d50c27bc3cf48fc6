"""Small raw datasets in the layouts of the real ones, made of random pixels.

Each function writes one under a folder and returns the labels it put there, which
preparation has to give: {(split, id): uint8 [H, W] with 255 = ignore}.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from keras_seg import storage
from keras_seg.data import prepared
from keras_seg.data.prepared import Prepared, read_label
from keras_seg.data.surreal.parts import MERGES
from keras_seg.data.writer import NewSample, Options, write_prepared
from keras_seg.labels import LabelSpec


def blobs(rng, size: tuple[int, int], ids) -> np.ndarray:
    """uint8 [H, W]: patches of 4 x 4 px of the given ids, as masks look."""
    height, width = size
    coarse = rng.choice(np.array(ids, np.uint8), (-(-height // 4), -(-width // 4)))
    return coarse.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]


def photo(rng, size: tuple[int, int]) -> np.ndarray:
    """uint8 RGB [H, W, 3], smooth and noisy."""
    ramp = np.add.outer(np.arange(size[0]), np.arange(size[1])) % 200
    return (ramp[..., None] + rng.integers(0, 50, (*size, 3))).astype(np.uint8)


def save(array: np.ndarray | Image.Image, path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)


def png(width: int, height: int, bits: int, colour_type: int, packed: bytes, *chunks):
    """A PNG file by hand, of packed rows that each begin with a filter byte.

    `chunks` are further (kind, content) between header and pixels.
    """
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = (b"IHDR", header), *chunks, (b"IDAT", packed), (b"IEND", b"")
    file = b"\x89PNG\r\n\x1a\n"
    for kind, content in parts:
        checksum = zlib.crc32(kind + content)
        file += struct.pack(">I", len(content)) + kind + content + checksum.to_bytes(4)
    return file


def square(array):
    """Zeros around, by hand: the odd pixel goes to the end."""
    height, width = array.shape[:2]
    side = max(height, width)
    padded = np.zeros((side, side, *array.shape[2:]), array.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    padded[top : top + height, left : left + width] = array
    return padded


def labels_of(prepared: Prepared) -> dict[tuple[str, str], np.ndarray]:
    """{(split, id): label} of a whole prepared folder."""
    return {
        (sample.split, sample.id): read_label(sample.label)
        for split in prepared.splits
        for sample in prepared.samples(split)
    }


def assert_labels(prepared: Prepared, expected: dict) -> None:
    """The folder has just the labels {(split, id) or id: label}."""
    found = labels_of(prepared)
    if not isinstance(next(iter(expected)), tuple):
        found = {name: label for (_, name), label in found.items()}
    assert found.keys() == expected.keys()
    for key, label in expected.items():
        np.testing.assert_array_equal(found[key], label)


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
            files = f"{split}/{name}.png", f"{split}annot/{name}.png"
            lines.append(" ".join(f"/SegNet/CamVid/{file}" for file in files) + "\n")
            expected[split, name] = np.where(raw == 11, 255, raw)
        (root / f"{split}.txt").write_text("".join(lines))
    return expected


def cityscapes(root: Path, counts=(("train", 4), ("val", 3), ("test", 2))) -> dict:
    """leftImg8bit and gtFine of two cities; all 34 ids and 255 (license plate).

    The expected ids are those of the 34-id space. The test labels are dummies.
    """
    rng = np.random.default_rng(2)
    size, expected = (32, 64), {}
    for split, count in counts:
        for number in range(count):
            city = ("aachen", "ulm")[number % 2]
            frame = f"{city}_{number:06d}_000019"
            raw = blobs(rng, size, [*range(34), 255])
            label = np.zeros_like(raw) if split == "test" else raw
            image = root / "leftImg8bit" / split / city / f"{frame}_leftImg8bit.png"
            save(photo(rng, size), image)
            place = root / "gtFine" / split / city
            save(label, place / f"{frame}_gtFine_labelIds.png")
            save(label * 0, place / f"{frame}_gtFine_instanceIds.png")
            if split != "test":
                expected[split, frame] = raw
    return expected


def palette_image(ids: np.ndarray, colours: list[int]) -> Image.Image:
    """A palette image: `colours` is flat, R, G, B of index 0 and so on."""
    image = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
    image.putpalette(colours)
    return image


def voc(root: Path, year="2007", counts=(("train", 4), ("val", 3), ("test", 2))):
    """VOCdevkit/VOC20xx with palette masks; images of different sizes."""
    rng = np.random.default_rng(3)
    folder, expected = root / f"VOC{year}", {}
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    number = 0
    for split, count in counts:
        names = []
        for _ in range(count):
            number += 1
            names.append(f"{number:06d}" if year == "2007" else f"2012_{number:06d}")
            size = (20 + number, 40 - number)
            ids = blobs(rng, size, [*range(21), 255])
            save(photo(rng, size), folder / "JPEGImages" / f"{names[-1]}.jpg")
            mask = folder / "SegmentationClass" / f"{names[-1]}.png"
            save(palette_image(ids, [9] * 765 + [224, 224, 192]), mask)
            expected[split, names[-1]] = ids
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    return expected


def atr(root: Path, count=20) -> dict:
    """JPEGImages and SegmentationClassAug, portraits; {id: label} without splits."""
    rng, expected = np.random.default_rng(4), {}
    for number in range(count):
        name = f"{number + 1}_1"
        size = (40, 24 + number % 3)
        ids = blobs(rng, size, range(18))
        save(photo(rng, size), root / "JPEGImages" / f"{name}.jpg", quality=90)
        save(ids, root / "SegmentationClassAug" / f"{name}.png")
        expected[name] = ids
    return expected


def ccp(root: Path, count=10) -> dict:
    """photos and annotations/pixel-level; one photograph more, without annotation."""
    rng, expected = np.random.default_rng(5), {}
    place = root / "annotations" / "pixel-level"
    place.mkdir(parents=True)
    for number in range(1, count + 2):
        size = (44, 30 + number % 2)
        save(photo(rng, size), root / "photos" / f"{number:04d}.jpg", quality=90)
        if number <= count:
            ids, path = blobs(rng, size, range(59)), place / f"{number:04d}.mat"
            savemat(path, {"groundtruth": ids}, do_compression=True)
            expected[path.stem] = ids
    return expected


def folder(root: Path, count=10, num_classes=3, size=(16, 20)) -> dict:
    """images/*.png and labels/*.png with equal names; {id: label}."""
    rng, expected = np.random.default_rng(6), {}
    for number in range(count):
        name = f"seq{number // 3}_frame{number}"
        ids = blobs(rng, size, [*range(num_classes), 255])
        save(photo(rng, size), root / "images" / f"{name}.png")
        save(ids, root / "labels" / f"{name}.png")
        expected[name] = ids
    return expected


def publish(out, name, labels: LabelSpec, samples: list[NewSample]) -> Prepared:
    """The prepared folder of these samples."""
    return write_prepared(out, name, labels, samples, lambda s: [s], Options(), {})[0]


def bodies(
    out: Path, counts=(("train", 6), ("val", 4), ("test", 3)), merge="none"
) -> Path:
    """A prepared folder with SURREAL's classes and 24 joints; 40 x 48 px."""
    labels, merged = MERGES[merge]
    rng = np.random.default_rng(8)
    size = (40, 48)
    samples = []
    for split, count in counts:
        for number in range(count):
            label = np.take(merged, blobs(rng, size, range(25))).astype(np.uint8)
            name = f"{split}{number}"
            joints = rng.uniform(0, size[::-1], (24, 2)).astype("float32")
            image = labels.colourise(label)
            samples.append(NewSample(split, name, image, label, joints=joints))
    return publish(out, "bodies", labels, samples).folder


def shapes(
    out: Path, counts=(("train", 10), ("val", 6), ("test", 3)), classes=4
) -> Path:
    """A prepared folder whose classes are told by their colour; 24 x 40 px.

    Classes: ground, left, right (a left/right pair) and others that are absent. Some
    pixels are void.
    """
    names = ("ground", "left", "right", "absent", "absent too")
    colours = ((0, 0, 0), (200, 30, 30), (30, 200, 30), (30, 30, 200), (9, 9, 9))
    labels = LabelSpec(names[:classes], colours[:classes], flip_pairs=((1, 2),))
    rng = np.random.default_rng(7)
    samples = []
    for split, count in counts:
        for number in range(count):
            label = blobs(rng, (24, 40), [0, 0, 1, 2, 255])
            noise = rng.integers(0, 40, (24, 40, 3))
            image = labels.colourise(label) + noise.astype(np.uint8)
            samples.append(NewSample(split, f"{split}{number}", image, label))
    return publish(out, "shapes", labels, samples).folder


def scores(miou: float, **more) -> dict:
    """metrics.json of some run on `shapes`; `more` goes into it."""
    classes = ["ground", "left", "right", "absent"]
    rows = [miou, None, 0.5, None]
    per_class = dict.fromkeys(("iou", "recall", "precision", "f1"), rows)
    record = {"step": 1, "steps": 1, "split": "val", "images": 2, "classes": classes}
    record |= {"summary": {"miou": miou}, "per_class": per_class}
    record |= {"confusion": np.eye(4, dtype=int).tolist(), "absent_ids": [3]}
    return record | {"parameters": {"trainable": 7, "all": 9}} | more


def resign(folder: Path) -> None:
    """Record the hashes of changed files, as if they had been prepared so."""
    path = folder / "manifest.csv"
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    for row in rows:
        split, name, image = row[:3]
        row[3] = storage.sha256(folder / "images" / split / image)
        row[4] = storage.sha256(folder / "labels" / split / f"{name}.png")
    path.write_text("".join(",".join(row) + "\n" for row in (header, *rows)))
    lines = prepared.sum_lines(folder, prepared.read_meta(folder)["joints"])
    (folder / "SHA256SUMS").write_text("".join(lines.values()))


@contextmanager
def plain_runs() -> Iterator[None]:
    """Runs draw no pictures and time one image, where nobody asks for either."""
    import pytest

    from keras_seg import plots
    from keras_seg.runs import evaluate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "TIMED_IMAGES", 1)
        for name in ("run_samples", "run_curves"):
            patch.setattr(plots, name, lambda *_: None)
        patch.setattr(plots, "png", lambda _: b"")
        yield
