"""What can be wrong with a checkpoint."""


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
