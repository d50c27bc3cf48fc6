"""The same networks on JAX: built, and equal logits from equal weights."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import backend_logits
import numpy as np
import pytest
from test_nets import ROWS


@pytest.mark.jax
@pytest.mark.slow
def test_jax_gives_tensorflows_logits(tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    cases = {name: (row.small, row.small_knobs) for name, row in ROWS.items()}
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, Path(backend_logits.__file__)]
    command += [tmp_path / "cases.json", tmp_path / "jax.npz"]
    subprocess.run(command, env=os.environ | {"KERAS_BACKEND": "jax"}, check=True)
    with np.load(tmp_path / "jax.npz") as jax:
        for name, (size, knobs) in cases.items():
            expected = backend_logits.outputs(name, size, knobs)
            for head, logits in expected.items():
                atol = 1e-4 * np.abs(logits).max()
                np.testing.assert_allclose(jax[head], logits, 0, atol, err_msg=head)
