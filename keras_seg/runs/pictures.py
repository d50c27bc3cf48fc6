"""Pictures as people have them: found, read, and drawn with their classes.

A picture may be larger than what memory holds several times, so what is made of it is
made and written a block of rows at a time.
"""

import glob
import io
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_seg import storage
from keras_seg.command_line import install_hint
from keras_seg.data.images import MAX_PIXELS, read_raw_image
from keras_seg.errors import DataError, UsageError
from keras_seg.labels import LabelSpec, has_background

# A file, uint8 RGB [H, W, 3], or an image of Pillow in the mode RGB
Picture = str | PathLike | np.ndarray | Image.Image

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
LARGEST = 1 << 30  # pixels of a picture that is read; 3 GB
_EXIF_ORIENTATION = 274
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Size = tuple[int, int]  # height, width


# Found


def find(places: Sequence[str | PathLike]) -> dict[Path, str]:
    """Pictures and videos, by the name that their results get.

    Args:
        places: files, folders with everything below them, and patterns such as
            "photos/*.jpg" (the shell usually resolves them before).

    Returns:
        {file: name}, in order. The name is that of the file without its ending, after
        the folders between it and the place given; with the ending where only that
        tells two files apart.

    Raises:
        UsageError: a place is not there, a folder or pattern has no picture, or the
            results of two files would replace each other.
    """
    found: dict[Path, Path] = {}
    for place in map(Path, places):
        if place.is_dir():
            files = sorted(p for p in place.rglob("*") if _is_wanted(p, place))
            named = {file: file.relative_to(place) for file in files}
            if not named:
                raise UsageError(f"{place} has no picture and no video in it.")
        elif any(sign in str(place) for sign in "*?[") and not place.exists():
            files = sorted(map(Path, glob.glob(str(place), recursive=True)))
            named = {file: Path(file.name) for file in files if file.is_file()}
            if not named:
                raise UsageError(f"No file matches {place}.")
        else:
            named = {place: Path(place.name)}
        found |= named
    return _names(found)


def _is_wanted(path: Path, top: Path) -> bool:
    """Whether it is a picture or a video; what a system hides is neither."""
    parts = path.relative_to(top).parts
    is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return (
        path.suffix.lower() in (*PICTURES, *VIDEOS) and not is_hidden and path.is_file()
    )


def _names(found: Mapping[Path, Path]) -> dict[Path, str]:
    short: dict[str, list[Path]] = {}
    for file, name in found.items():
        short.setdefault(str(name.with_suffix("")), []).append(file)
    names = {}
    for name, files in short.items():
        for file in files:
            names[file] = name if len(files) == 1 else str(found[file])
        if len(set(names[file] for file in files)) < len(files):
            raise UsageError(
                f"Two pictures are called {name}, {files[0]} and {files[1]}; their "
                "results would replace each other. Predict them into two folders, or "
                "name the folder that holds both."
            )
    return {file: names[file] for file in found}


def is_video(file: Path) -> bool:
    """Whether a file is a video, by its ending."""
    return file.suffix.lower() in VIDEOS


# Read


def pixels(picture: Picture, levels: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a picture, turned as its EXIF orientation says.

    `levels` of a file of 16 bits become 0 and 255; None takes the upper 8 bits.

    Raises:
        DataError: the file cannot be read.
        UsageError: an array of another shape or type.
    """
    if isinstance(picture, str | PathLike):
        return _read(Path(picture), levels)
    image = np.asarray(picture)
    is_rgb = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not is_rgb or not image.size:
        raise UsageError(
            f"An image is {image.dtype} {list(image.shape)}; it must be uint8 RGB "
            "[height, width, 3] with values from 0 to 255."
        )
    return image


def size_in_file(file: Path) -> Size:
    """(height, width) as the file's header has them; (0, 0) where it cannot be read."""
    try:
        return (
            _header(file)[0] if file.is_file() else (0, 0)
        )  # a pipe would be waited for
    except Exception:  # reading the file says what is wrong with it
        return (0, 0)


def _read(file: Path, levels: tuple[int, int] | None) -> np.ndarray:
    height, width = size_in_file(file)
    if height * width <= MAX_PIXELS:
        return read_raw_image(file, levels).pixels
    if levels is not None:
        raise DataError(
            f"{file} has {width} x {height} pixels; of data with 16 bits {MAX_PIXELS} "
            "are allowed. Cut it."
        )
    if height * width > LARGEST:
        raise DataError(
            f"{file} has {width} x {height} pixels; {LARGEST} are allowed. Cut it."
        )
    _check_end(file)
    # OpenCV decodes into 3 bytes a pixel; Pillow would need 7 until it is an array. An
    # array that OpenCV makes itself it makes twice.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = np.empty((height, width, 3), np.uint8)
    image = cv2.imread(str(file), image, flags)
    if image is None:
        raise DataError(f"{file} is damaged (it cannot be decoded).")
    # A view of BGR: OpenCV would hold the picture twice to exchange red and blue.
    return _turned(image[..., ::-1], _header(file)[1])


def _check_end(file: Path) -> None:
    """DataError where a PNG or JPEG lacks its end: OpenCV would make one up."""
    with open(file, "rb") as opened:
        start = opened.read(4)
        opened.seek(max(0, os.path.getsize(file) - (1 << 16)))
        ends = {b"\x89PNG": b"IEND\xaeB`\x82", b"\xff\xd8\xff": b"\xff\xd9"}
        marker = next((e for s, e in ends.items() if start.startswith(s)), b"")
        if marker not in opened.read():
            raise DataError(f"{file} is truncated at {os.path.getsize(file)} bytes.")


def _header(file: Path) -> tuple[Size, int]:
    """The size of a picture and its EXIF orientation, without decoding it."""
    largest, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(file) as image:
            width, height = image.size
            is_found = image.info.keys() & {"exif", "Raw profile type exif"}
            if image.format == "PNG" and not is_found:
                # Pillow would decode it to look behind the pixels.
                image.info["exif"] = b"Exif\0\0" + _png_exif(file)
            return (height, width), image.getexif().get(_EXIF_ORIENTATION, 1)
    finally:
        Image.MAX_IMAGE_PIXELS = largest


def _png_exif(file: Path) -> bytes:
    """The EXIF data of a PNG, b"" without any, wherever they are in it."""
    with open(file, "rb") as opened:
        opened.seek(len(_PNG_SIGNATURE))
        while len(header := opened.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind == b"eXIf":
                return opened.read(length)
            opened.seek(length + 4, os.SEEK_CUR)  # and the checksum
    return b""


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """The image as its EXIF orientation shows it; a view."""
    if orientation in (2, 4, 5, 7):
        image = image[:, ::-1]
    return np.rot90(image, {3: 2, 4: 2, 5: 1, 6: -1, 7: -1, 8: 1}.get(orientation, 0))


def frames(video: Path) -> Iterator[np.ndarray]:
    """The frames of a video, uint8 RGB [H, W, 3], turned as a player shows them.

    Raises:
        DataError: it cannot be decoded; frames before the damage are given.
    """
    av = _av(video)
    try:
        with av.open(str(video)) as container:
            if not container.streams.video:
                raise DataError(f"{video} has no picture in it, only sound.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                turns = round(getattr(frame, "rotation", 0) / 90)
                yield np.ascontiguousarray(
                    np.rot90(frame.to_ndarray(format="rgb24"), turns)
                )
    except av.error.FFmpegError as error:
        raise DataError(f"{video} cannot be read as a video: {error}.") from None


def frame_rate(video: Path) -> tuple[float, int]:
    """Frames a second, and how many there are as far as the file says (else 0)."""
    av = _av(video)
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate or 25
            return float(rate), int(stream.frames or 0)
    except (av.error.FFmpegError, IndexError) as error:
        raise DataError(f"{video} cannot be read as a video: {error}.") from None


def _av(video: Path) -> Any:
    try:
        import av
        import av.error
    except ImportError:
        raise UsageError(
            f"{video} is a video; reading it needs PyAV: {install_hint('video')}."
        ) from None
    return av


class VideoWriter:
    """An MP4 file of frames uint8 RGB [H, W, 3] of one size."""

    def __init__(self, path: Path, rate: float):
        from fractions import Fraction

        self._av = _av(path)
        self._container = self._av.open(str(path), "w", format="mp4")
        limited = Fraction(rate).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=limited)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "veryfast"}
        self._is_open = False

    def write(self, frame: np.ndarray) -> None:
        """Add a frame; an odd side loses its last pixel, which MP4 cannot have."""
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if not self._is_open:
            self._stream.height, self._stream.width = height, width
            self._is_open = True
        picture = np.ascontiguousarray(
            frame[: self._stream.height, : self._stream.width]
        )
        made = self._av.VideoFrame.from_ndarray(picture, format="rgb24")
        self._container.mux(self._stream.encode(made))

    def close(self) -> None:
        if self._is_open:
            self._container.mux(self._stream.encode())
        self._container.close()


# Drawn


def overlay(image: np.ndarray, ids: np.ndarray, labels: LabelSpec) -> np.ndarray:
    """uint8 RGB [H, W, 3]: half picture, half class colours; the background as it is.

    Only a class 0 named "background" is one.
    """
    painted = cv2.addWeighted(
        np.ascontiguousarray(image), 0.5, labels.colourise(ids), 0.5, -0.25
    )
    if has_background(labels.names):
        painted[ids == 0] = image[ids == 0]
    return painted


def legend(areas: np.ndarray | None, labels: LabelSpec, size: Size) -> np.ndarray:
    """uint8 RGB [h, W, 3]: the classes of a picture with their colours and shares.

    Args:
        areas: pixels of each class, [C]; classes without any are left out. None is
            all classes, without shares.
        labels: names and colours.
        size: (height, width) of the picture that it goes below, which decides the
            size of the letters. The legend is wider where a name does not fit.
    """
    letters = int(np.clip(min(size[0], size[1] * 2 / 3) / 42, 12, 320))
    hidden = has_background(labels.names)
    texts = dict(enumerate(labels.names))
    if areas is not None:
        shares = areas / max(1, areas.sum())
        present = np.flatnonzero(areas).tolist()
        texts = {k: f"{texts[k]}  {_percent(shares[k])}" for k in present}
    if hidden:
        texts.pop(0, None)
    drawn = [_entry(text, labels.palette[k], letters) for k, text in texts.items()]
    gap = letters // 2
    column = max((entry.shape[1] for entry in drawn), default=0) + 2 * gap
    width = max(size[1], column + gap)
    columns = max(1, (width - gap) // column)
    line = int(1.6 * letters)
    rows = -(-len(drawn) // columns)
    whole = np.full((rows * line + (gap if rows else 0), width, 3), 255, np.uint8)
    for number, entry in enumerate(drawn):
        row, place = divmod(number, columns)
        y, x = gap // 2 + row * line, gap + place * column
        whole[y : y + line, x : x + entry.shape[1]] = entry
    return whole


@lru_cache(maxsize=4096)
def _entry(text: str, colour: tuple[int, int, int], letters: int) -> np.ndarray:
    """uint8 RGB [h, w, 3]: a box of a colour and a text. Few differ among pictures."""
    from keras_seg import plots  # Matplotlib takes a second to import

    font, gap, line = _font(letters), letters // 2, int(1.6 * letters)
    width = letters + gap + int(np.ceil(font.getlength(text))) + 1
    drawn = Image.new("RGB", (width, line), "white")
    pen = ImageDraw.Draw(drawn)
    top = (line - letters) // 2
    pen.rectangle((0, top, letters, top + letters), fill=colour, outline=plots.MUTED)
    place = (letters + gap, line // 2)
    pen.text(place, text, fill=plots.INK, font=font, anchor="lm")
    return np.array(drawn)


def with_legend(painted: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """A picture [H, W, 3] above a legend [h, W' >= W, 3], on white."""
    missing = drawn.shape[1] - painted.shape[1]
    wide = np.pad(painted, ((0, 0), (0, missing), (0, 0)), constant_values=255)
    return np.concatenate([wide, drawn])


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0095 else "< 1 %"


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own, which has the letters of most languages."""
    import matplotlib

    place = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(place), size)


# Written


class PngWriter:
    """A PNG file written some rows at a time: class ids with a palette, or RGB.

    Args:
        file: open for writing.
        size: (height, width) of the whole.
        palette: the colours of the ids; None for RGB.
    """

    def __init__(
        self,
        file: BinaryIO,
        size: Size,
        palette: Sequence[tuple[int, int, int]] | None = None,
    ):
        self._file, self._palette = file, palette
        self._width = size[1]
        file.write(_PNG_SIGNATURE)
        self._header(size[0])
        if palette is not None:
            self._chunk(b"PLTE", np.array(palette, np.uint8).tobytes())
        # Runs of equal values alone: photographs have few longer matches, which take
        # long to find.
        self._packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
        self._above: np.ndarray | None = None

    def write(self, rows: np.ndarray) -> None:
        """Add rows: uint8 [n, W] ids, or [n, W, 3] RGB."""
        flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
        filtered = np.empty((len(flat), flat.shape[1] + 1), np.uint8)
        if self._palette is not None:
            filtered[:, 0], filtered[:, 1:] = 0, flat
        else:  # differences to the row above pack better
            above = np.zeros_like(flat[0]) if self._above is None else self._above
            filtered[:, 0] = 2
            np.subtract(flat[0], above, out=filtered[0, 1:])
            np.subtract(flat[1:], flat[:-1], out=filtered[1:, 1:])
            self._above = flat[-1].copy()
        if packed := self._packer.compress(filtered.data):
            self._chunk(b"IDAT", packed)

    def grow(self, height: int) -> None:
        """Correct the height of the whole; the rows themselves are given by `write`."""
        end = self._file.tell()
        self._file.seek(len(_PNG_SIGNATURE))
        self._header(height)
        self._file.seek(end)

    def _header(self, height: int) -> None:
        kind = 2 if self._palette is None else 3
        header = struct.pack(">IIBBBBB", self._width, height, 8, kind, 0, 0, 0)
        self._chunk(b"IHDR", header)

    def close(self) -> None:
        """Write what is left, and the end."""
        self._chunk(b"IDAT", self._packer.flush())
        self._chunk(b"IEND", b"")

    def _chunk(self, kind: bytes, content: bytes) -> None:
        self._file.write(struct.pack(">I", len(content)) + kind)
        self._file.write(content)
        checksum = zlib.crc32(content, zlib.crc32(kind))
        self._file.write(checksum.to_bytes(4))


class ArrayWriter:
    """A .npy file of float16 [H, W, C] written some rows at a time."""

    def __init__(self, file: BinaryIO, shape: tuple[int, int, int]):
        self._file = file
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

    def write(self, rows: np.ndarray) -> None:
        """Add rows: float [n, W, C]."""
        self._file.write(np.ascontiguousarray(rows, "<f2").tobytes())

    def close(self) -> None:
        """Nothing is left to write."""


def ids_png(ids: np.ndarray, labels: LabelSpec) -> bytes:
    """A PNG whose values are class ids [H, W] and whose palette shows their colours."""
    content = io.BytesIO()
    writer = PngWriter(content, ids.shape, labels.palette)
    writer.write(ids)
    writer.close()
    return content.getvalue()


def write_ids(path: Path, ids: np.ndarray, labels: LabelSpec) -> None:
    """`ids_png` as a file."""
    storage.write_file(path, ids_png(ids, labels))
