"""The errors a user can meet: one clear line and a documented exit code each.

Every message reads ``<what>: <value>; expected <...>`` and names the file, field
or value concerned. `keras_seg.command_line.run` prints it as ``error: ...`` on
stderr and leaves with `exit_code`. Anything else that is raised is a bug (1).
"""

from contextlib import contextmanager

INTERRUPTED_EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


class KerasSegError(Exception):
    """Base class. Use one of its subclasses.

    Args:
        what: str. The field, file or thing that is wrong.
        value: what was found there; printed with str().
        expected: str. What would have been right, after the word "expected".
    """

    exit_code = 1

    def __init__(self, what: str, value: object, expected: str):
        line = f"{what}: {value}; expected {expected}"
        super().__init__(" ".join(line.split()))
        self.what, self.value, self.expected = what, value, expected

    @classmethod
    def from_line(cls, line: str) -> "KerasSegError":
        """The error whose message another process printed."""
        error = cls.__new__(cls)
        Exception.__init__(error, line)
        error.what, error.value, error.expected = line, "", ""
        return error

    def __reduce__(self):
        # Exceptions cross process boundaries in the preparation workers.
        return type(self), (self.what, self.value, self.expected)


class UsageError(KerasSegError, ValueError):
    """Wrong use or configuration: an unknown name, a size a net cannot take."""

    exit_code = 2


class DataError(KerasSegError, ValueError):
    """Bad data: a truncated image, a label outside the classes."""

    exit_code = 3


class DivergedError(KerasSegError):
    """A loss or a weight is no longer finite."""

    exit_code = 4


class StorageError(KerasSegError):
    """The disk is full or not writable, or every checkpoint is damaged."""

    exit_code = 5


class LockedError(KerasSegError):
    """Another process works on the same folder."""

    exit_code = 75


class OutOfMemoryError(KerasSegError):
    """The machine or the device has not enough memory for the run."""

    exit_code = 137


class InterruptedRunError(KerasSegError):
    """SIGINT or SIGTERM; the run can go on from its checkpoint."""

    def __init__(self, what: str, value: object, expected: str):
        super().__init__(what, value, expected)
        self.exit_code = INTERRUPTED_EXIT_CODES[str(value)]


class ArmsFailedError(KerasSegError):
    """A stage finished, but some of its arms failed."""

    exit_code = 6


@contextmanager
def memory_failure_named():
    """Turn what Python or a backend raises for want of memory into OutOfMemoryError."""
    try:
        yield
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        expected = "a smaller batch, size or net"
        raise OutOfMemoryError("memory", line, expected) from error


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        type(error).__name__ in ("ResourceExhaustedError", "XlaRuntimeError")
        and ("OOM" in str(error) or "RESOURCE_EXHAUSTED" in str(error))
    )
