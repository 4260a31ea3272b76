"""The end of a run whose checkpoint lacks a part of the model."""

from mmengine.hooks import Hook

from ...checkpoint.matching import load_matching


class CheckpointMatchHook(Hook):
    """Stops if a loaded checkpoint lacks a parameter or buffer of the model.

    mmengine only logs this, and goes on with random weights. Keys that the
    model does not have are left to mmengine's warning.

    Args:
        filename: What the error calls the checkpoint.
    """

    # Before mmengine's EMAHook loads the checkpoint, whose error says less.
    priority = 'HIGHEST'

    def __init__(self, filename: str) -> None:
        self.filename = filename

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """See ``load_matching``; leaves the weights where EMAHook looks for them."""
        checkpoint['state_dict'] = load_matching(
            runner.model, checkpoint, self.filename
        )
