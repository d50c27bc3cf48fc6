"""The errors a user can meet: one clear sentence and a documented exit code each.

`keras_seg.command_line.run` prints the sentence as ``error: ...`` on stderr and exits
with `exit_code`. Anything else is a bug: exit code 1, with its traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED_EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


class KerasSegError(Exception):
    """Base class; use one of its subclasses.

    Args:
        message: a plain sentence, kept on one line, that names the file, field or value
            that is wrong and the way out.
    """

    exit_code = 1

    def __init__(self, message: object):
        super().__init__(" ".join(str(message).split()))


class UsageError(KerasSegError, ValueError):
    """Wrong use or configuration: an unknown name, a size a net cannot take."""

    exit_code = 2


class DataError(KerasSegError, ValueError):
    """Bad data: a truncated image, a label outside the classes."""

    exit_code = 3


class NothingToScoreError(KerasSegError):
    """No labelled pixel is left at the size of a run; at another size there may be."""

    exit_code = 2


class DivergedError(KerasSegError):
    """A loss or a weight is no longer finite."""

    exit_code = 4


class StorageError(KerasSegError):
    """The disk is full or not writable, or what is stored is damaged."""

    exit_code = 5


class LockedError(KerasSegError):
    """Another process works on the same folder."""

    exit_code = 75


class OutOfMemoryError(KerasSegError):
    """The machine or the device has not enough memory for the run."""

    exit_code = 137


class InterruptedRunError(KerasSegError):
    """SIGINT, SIGTERM or SIGHUP stopped a run, which its checkpoint resumes.

    Args:
        message: a plain sentence.
        signal: its name.
    """

    def __init__(self, message: str, signal: str):
        super().__init__(message)
        self.signal = signal
        self.exit_code = INTERRUPTED_EXIT_CODES[signal]

    def __reduce__(self) -> tuple:
        # Exceptions cross process boundaries in the preparation workers.
        return type(self), (str(self), self.signal)


class ArmsFailedError(KerasSegError):
    """A stage finished, but some of its arms failed."""

    exit_code = 6


@contextmanager
def memory_failure_named() -> Iterator[None]:
    """Turn what running out of memory raises into OutOfMemoryError."""
    try:
        yield
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise OutOfMemoryError(
            f"Out of memory ({line}). Use a smaller batch, size or network."
        ) from error


_RUNTIME_ERRORS = ("ResourceExhaustedError", "XlaRuntimeError", "JaxRuntimeError")


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        type(error).__name__ in _RUNTIME_ERRORS
        and ("OOM" in str(error) or "RESOURCE_EXHAUSTED" in str(error))
    )
