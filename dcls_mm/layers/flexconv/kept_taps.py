"""The number of taps that a mask leaves, kept for some steps of training."""

from torch import Tensor


class KeptTaps:
    """Taps per axis as read from a mask, and for how many of its changes they serve.

    A change is a write in place, such as an optimizer's step. Calls without one in
    between (accumulated gradients, a block that is computed again in the backward pass)
    thus have the same taps.

    Args:
        taps: taps per axis.
        changes: the number of changes after which the mask is read again.
        mask: the tensors that were read.
        settings: whatever else the taps depend on.
    """

    def __init__(
        self, taps: tuple[int, ...], changes: int, mask: tuple[Tensor, ...], settings
    ):
        self.taps = taps
        self._left, self._mask, self._settings = changes, mask, settings
        self._versions = [tensor._version for tensor in mask]

    def serve(self, mask: tuple[Tensor, ...], settings) -> bool:
        """Return whether the taps still serve, counting the mask's changes."""
        if settings != self._settings or any(
            now is not then for now, then in zip(mask, self._mask)
        ):
            return False
        versions = [tensor._version for tensor in mask]
        if versions != self._versions:
            self._versions, self._left = versions, self._left - 1
        return self._left > 0
