"""Every error a user can meet: what was found, what was expected, where, and what to do.

The command line turns a :class:`LesionsynthError` into one message and the exit code of its
class; anything else that reaches it is a bug and is shown as one.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells the shell. Documented in docs/reference/cli.md, which a test compares."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    RECIPE = 3
    INPUT = 4
    OUTPUT = 5
    SOME_FAILED = 6
    SHORTFALL = 7
    INTERNAL = 70
    INTERRUPTED = 130


class LesionsynthError(Exception):
    """Base of all expected errors.

    Parameters
    ----------
    message : str
        What was found and what was expected.
    case, file : str, optional
        Where.
    remedy : str, optional
        What the user can do about it.
    """

    exit_code = ExitCode.INPUT

    def __init__(
        self, message: str, *, case: str | None = None, file: object = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.case = case
        self.file = None if file is None else str(file)
        self.remedy = remedy

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.case and f"case {self.case}", self.file) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword arguments do not survive the way back from a worker otherwise.
        return (_rebuild, (type(self), self.message, self.case, self.file, self.remedy))


def _rebuild(
    kind: type[LesionsynthError], message: str, case: str | None, file: str | None, remedy: str | None
) -> LesionsynthError:
    return kind(message, case=case, file=file, remedy=remedy)


class RecipeError(LesionsynthError):
    """The recipe cannot be read or does not fit its schema."""

    exit_code = ExitCode.RECIPE


class InputError(LesionsynthError):
    """A data set or one of its files is not what it has to be."""

    exit_code = ExitCode.INPUT


class ImageError(InputError):
    """A NIfTI file is broken, truncated, or of a kind that is not supported."""


class NoLesionError(InputError):
    """None of some cases has a lesion, so that there is nothing to learn or to find."""


class LeakError(InputError):
    """The leak rule leaves nothing to work with, or would be broken."""


class OutputError(LesionsynthError):
    """The output folder cannot be used or written."""

    exit_code = ExitCode.OUTPUT


class DeviceError(LesionsynthError):
    """The device that was asked for is not there or too small."""

    exit_code = ExitCode.USAGE


class NoRoomError(LesionsynthError):
    """No edit of a case was possible; the case is not written."""
