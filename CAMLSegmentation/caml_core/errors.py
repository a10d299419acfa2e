"""Errors that a user can meet: one plain sentence that says what was wrong, what was expected, what to do."""

from __future__ import annotations


class CamlError(Exception):
    """Base of every error that is shown to the user as one sentence, without a traceback.

    ``exit_code`` is what the command line returns for it.
    """

    exit_code = 1


class UsageError(CamlError):
    """An option or an argument does not make sense."""

    exit_code = 2


class DataError(CamlError):
    """A cohort, an image or a label cannot be used. ``case_id`` names the case where one is at fault."""

    exit_code = 3

    def __init__(self, message: str, case_id: str | None = None) -> None:
        self.case_id = case_id
        super().__init__(message)


class ModelFileError(CamlError):
    """A model file is missing, damaged, foreign or too new."""

    exit_code = 4


class ResourceError(CamlError):
    """Memory, disk, permissions or a device do not suffice."""

    exit_code = 5


class DiskFullError(ResourceError):
    """Nothing more can be written to a disk, whatever it is."""


class DeviceBusyError(ResourceError):
    """A device is there, and other programs have its memory, or all of it, now."""


class TrainingError(CamlError):
    """Training cannot start, go on, or be resumed."""

    exit_code = 6


class Cancelled(CamlError):
    """The stop file appeared or the process was asked to end; what was finished is saved."""

    exit_code = 130
