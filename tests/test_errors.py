"""Errors that a user meets are named, others are left alone."""

import pickle

import pytest

from keras_seg import errors


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 17 GiB"),
        ResourceExhaustedError("OOM when allocating tensor [64,320,320]\nmore"),
    ],
)
def test_want_of_memory_is_named(error):
    with pytest.raises(errors.OutOfMemoryError) as found:
        with errors.memory_failure_named():
            raise error
    assert str(error).splitlines()[0] in str(found.value)
    assert "smaller batch" in str(found.value)
    assert found.value.exit_code == 137


def test_other_errors_pass_unchanged():
    with pytest.raises(ResourceExhaustedError, match="quota"):
        with errors.memory_failure_named():
            raise ResourceExhaustedError("quota of the file system")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (errors.DataError("a.png is  truncated."), "a.png is truncated."),
        (errors.InterruptedRunError("Interrupted.", "SIGTERM"), "Interrupted."),
    ],
)
def test_errors_survive_pickling(error, line):
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == line
    assert (type(copy), copy.exit_code) == (type(error), error.exit_code)
