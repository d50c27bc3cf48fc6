"""Synthetic humans: clips of `keras_seg.synthetic`, prepared as SURREAL's are.

They come in SURREAL's own format, made from openly licensed parts, so that the whole
preparation runs on a fresh machine. See datasets/synthetic_humans.md.
"""

from pathlib import Path

from keras_seg.data import surreal
from keras_seg.data.prepared import Prepared
from keras_seg.data.writer import Options

LABELS, GROUPS, SIZE = surreal.LABELS, surreal.GROUPS, surreal.SIZE

# There are few frames, so all are used. The generator puts the head-label defect on
# chest and pelvis only.
_DEFAULTS = {"frames": (None, None, None), "repair": "zones"}
OPTIONS = surreal.settings.options(surreal.Settings(**_DEFAULTS))


def prepare(
    src: str | Path, out: str | Path, options: Options, **settings
) -> tuple[Prepared, bool]:
    """Prepare clips; as `keras_seg.data.surreal.prepare`, with other defaults."""
    settings = {**_DEFAULTS, **settings}
    return surreal.prepare(src, out, options, dataset="synthetic_humans", **settings)
