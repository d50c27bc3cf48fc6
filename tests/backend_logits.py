"""Outputs of small networks on the current Keras backend, for test_nets_jax.py.

python backend_logits.py CASES.json OUT.npz: CASES is {name: [size, knobs]}; OUT holds
"name/head" arrays for fixed weights and one fixed image.
"""

import json
import sys
from pathlib import Path

import numpy as np

from keras_seg import nets


def outputs(name, size, knobs):
    """{"name/head": float32 [1, h, w, C]}, equal up to rounding on every backend."""
    model = nets.build(name, (*size, 3), 3, **knobs)
    rng = np.random.default_rng(0)
    for weight in sorted(model.weights, key=lambda weight: weight.path):
        if weight.path.endswith("kernel"):
            inputs = np.prod(weight.shape) / weight.shape[-1]
            value = rng.normal(0, (2 / inputs) ** 0.5, weight.shape)
        else:
            value = rng.uniform(0.5, 1.5, weight.shape)
        weight.assign(value.astype("float32"))
    image = np.random.default_rng(1).normal(0, 50, (1, *size, 3)).astype("float32")
    main = nets.inference_model(model)(image, training=False)["logits"]
    heads = model(image, training=False) | {"main": main}
    return {f"{name}/{head}": np.asarray(tensor) for head, tensor in heads.items()}


def main(cases: Path, out: Path) -> None:
    arrays = {}
    for name, (size, knobs) in json.loads(cases.read_text()).items():
        arrays |= outputs(name, size, knobs)
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
