"""One clip on disk, in SURREAL's formats and types.

<folder>/<sequence>_c0001.mp4       320x240, 30 frames a second
                 _segm.mat          segm_1 .. segm_T, uint8 [240, 320]
                 _segmclean.mat     the same without the head-label defect
                 _depth.mat         depth_1 .. depth_T, float32 [240, 320] (optional)
                 _info.mat          joints, pose, shape, camera, light, ...
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.io import savemat

from keras_seg.errors import StorageError
from keras_seg.synthetic.clip import STRIDE, Clip

CLIP_NUMBER = 1  # every sequence has one clip
FPS = 30
CRF = 23  # H.264 quality, SURREAL's
# MATLAB 5 files begin with 116 bytes of text, in which SciPy writes the time. Replaced,
# so that equal clips are equal files.
MAT_HEADER = b"MATLAB 5.0 MAT-file, written by keras_seg.synthetic".ljust(116)


def write_mat(path: Path, arrays: Mapping[str, str | np.ndarray]) -> None:
    """Saves a compressed MATLAB 5 file; equal arrays give equal bytes."""
    stream = io.BytesIO()
    savemat(stream, arrays, do_compression=True)
    path.write_bytes(MAT_HEADER + stream.getvalue()[len(MAT_HEADER) :])


def write_video(path: Path, frames: np.ndarray) -> None:
    """Saves RGB uint8 [T, H, W, 3] as H.264; without PyAV, as MPEG-4 part 2."""
    try:
        import av
    except ImportError:
        _write_video_opencv(path, frames)
        return
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # the bytes depend on the number of threads
        stream.options = {
            "crf": str(CRF),
            "preset": "medium",
            "threads": "1",
            # x264's fast approximations depend on the addresses of its buffers.
            "x264-params": "cpu-independent=1",
        }
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _write_video_opencv(path: Path, frames: np.ndarray) -> None:
    import cv2

    codec = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), codec, FPS, frames.shape[2:0:-1])
    if not writer.isOpened():
        raise StorageError(f"OpenCV cannot write {path}. Is the folder writable?")
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


def cell(texts: list[str]) -> np.ndarray:
    """A MATLAB cell row; SciPy saves other types than object as character matrices."""
    row = np.empty((1, len(texts)), object)
    row[0] = texts
    return row


def write_clip(folder: Path, clip: Clip) -> None:
    """Writes the files of a clip into an existing folder."""
    stem = folder / f"{clip.sequence}_c{CLIP_NUMBER:04d}"
    tables = {"segm": clip.segm, "segmclean": clip.segm_clean}
    if clip.depth is not None:
        tables["depth"] = clip.depth
    for name, images in tables.items():
        key = "depth" if name == "depth" else "segm"
        arrays = {f"{key}_{k + 1}": image for k, image in enumerate(images)}
        write_mat(stem.with_name(f"{stem.name}_{name}.mat"), arrays)
    write_mat(stem.with_name(f"{stem.name}_info.mat"), info(clip))
    write_video(stem.with_name(f"{stem.name}.mp4"), clip.rgb)


def info(clip: Clip) -> dict[str, str | np.ndarray]:
    """The variables of _info.mat, with the types of SURREAL's files."""
    count = len(clip.rgb)
    return {
        "sequence": clip.sequence,
        "clipNo": np.array([[CLIP_NUMBER]], np.uint8),
        "source": "synth",  # "cmu" in SURREAL
        "bg": cell([clip.background] * count),
        "cloth": cell([clip.cloth] * count),
        "gender": np.full((count, 1), clip.gender, np.uint8),
        "light": np.tile(clip.light[:, None], count).astype(np.float32),
        "stride": np.array([[STRIDE]], np.uint8),
        "camDist": np.array([[clip.cam_loc[0]]], np.float32),
        "camLoc": clip.cam_loc.astype(np.float32).reshape(3, 1),
        "joints2D": clip.joints_2d.astype(np.float32),
        "joints3D": clip.joints_3d.astype(np.float32),
        "pose": clip.pose.astype(np.float32),
        "shape": np.tile(clip.shape[:, None], count).astype(np.float32),
        "zrot": np.full((count, 1), clip.zrot, np.float32),
    }
