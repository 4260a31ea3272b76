"""What can be wrong with a checkpoint."""

from typing import Any


class CheckpointError(RuntimeError):
    """A checkpoint that can't be used, and why."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """A checkpoint that does not exist."""


class DamagedCheckpointError(CheckpointError):
    """A file that was cut off or changed, or is no checkpoint."""


class ContentError(CheckpointError, ValueError):
    """A checkpoint that was read, but has not the form of one."""


class Damage(Exception):
    """What is damaged in a file whose name is not known here."""


class Refusal(Exception):
    """What stands in a file whose name is not known here, and is not taken from it."""


def short(value: Any) -> str:
    """A value from a file, for a message.

    What holds others is called by its type: lists that hold each other twice, forty
    times over, have a ``repr`` without end.
    """
    if type(value) in (type(None), bool, int, float, str):
        return f'{value!r:.40}'
    return f'a {type(value).__name__}'
