"""A kernel that is mostly zeros, as what its taps come from."""

import math
from collections.abc import Callable

from torch import Tensor

from .native_code.direct import Elements, Taps


class SparseKernel:
    """A kernel of which a backend takes the elements, the taps or all numbers.

    It stands for the dense kernel in a call of :func:`.convolve_checked`, so it has the
    shape, dtype and device of that.

    Args:
        shape: of the dense kernel, (out, in // groups, *extent).
        like: a tensor with its dtype and device.
        dense: returns the dense kernel.
        content: the elements that it is constructed from; or, for a kernel that is
            kept, a function that lists the taps which are not zero. The list waits for
            the values, so it is made where it is asked for.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        like: Tensor,
        dense: Callable[[], Tensor],
        content: Elements | Callable[[], Taps],
    ):
        self.shape, self.dtype, self.device = shape, like.dtype, like.device
        self.dense = dense
        self._taps_each: float | None = None
        self._content: Elements | Taps | Callable[[], Taps] = content

    @property
    def content(self) -> Elements | Taps:
        if not isinstance(self._content, (Elements, Taps)):
            self._content = self._content()
        return self._content

    @property
    def taps_each(self) -> float:
        """The most taps that a kernel can have, or, of one that is kept, the mean."""
        if self._taps_each is None:
            content = self.content
            if isinstance(content, Elements):
                taps = content.weight.shape[1] * 2 ** len(content.positions)
                self._taps_each = min(taps, math.prod(self.shape[2:]))
            else:
                self._taps_each = int(content.values.count_nonzero()) / self.shape[0]
        return self._taps_each

    @property
    def parameters(self) -> list[Tensor]:
        """The tensors that are learned, if any."""
        content = self._content
        return [*content[:2]] if isinstance(content, Elements) else []

    @property
    def requires_grad(self) -> bool:
        return any(parameter.requires_grad for parameter in self.parameters)
