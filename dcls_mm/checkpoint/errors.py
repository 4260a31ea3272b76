"""The errors about checkpoints."""

from typing import Any


class CheckpointError(RuntimeError):
    """A checkpoint that can't be used, and why."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """A checkpoint that does not exist."""


class DamagedCheckpointError(CheckpointError):
    """A file that was truncated or changed, or is not a checkpoint."""


class ContentError(CheckpointError, ValueError):
    """A checkpoint that could be read, but has the wrong form."""


class Damage(Exception):
    """Damage in a file; whoever catches it knows the file's name."""


class Refusal(Exception):
    """Content that is not allowed in a file; whoever catches it knows the name."""


def short(value: Any) -> str:
    """Describe a value from a file, for a message.

    Containers are described by their type: lists that contain each other twice, forty
    levels deep, have an endless ``repr``.
    """
    if type(value) in (type(None), bool, int, float, str):
        return f'{value!r:.40}'
    return f'a {type(value).__name__}'
