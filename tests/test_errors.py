"""Errors that a user meets are named, others are left alone."""

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
    line = f"memory: {str(error).splitlines()[0]}; expected a smaller batch"
    assert str(found.value).startswith(line)
    assert found.value.exit_code == 137


def test_other_errors_pass_unchanged():
    with pytest.raises(ResourceExhaustedError, match="quota"):
        with errors.memory_failure_named():
            raise ResourceExhaustedError("quota of the file system")
