"""A hook that stops a run whose checkpoint lacks a part of the model."""

from mmengine.hooks import Hook

from ...checkpoint.matching import load_matching


class CheckpointMatchHook(Hook):
    """A hook that stops if a loaded checkpoint lacks a parameter or buffer.

    mmengine only logs this, and goes on with random weights. Keys that the model does
    not have are left to mmengine's warning.

    Args:
        filename: the checkpoint's name in the error message.
    """

    # Before mmengine's EMAHook, whose own error says less, loads the checkpoint.
    priority = 'HIGHEST'

    def __init__(self, filename: str) -> None:
        self.filename = filename

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Load the weights (``load_matching``), and put them where EMAHook looks."""
        checkpoint['state_dict'] = load_matching(
            runner.model, checkpoint, self.filename
        )
