"""What a call is, and what it asks of tensors and of torch."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Memory with the channels innermost, by the number of axes of a batch of images.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

# Bytes of the source that are read again and again while they are in the cache.
BLOCK_BYTES = 2**19


class TorchState(NamedTuple):
    """What a call has to know of its tensor and of torch.

    Attributes:
        device_type: of the tensor.
        channels_last: whether torch takes it for channels_last.
        compiling: whether torch.compile or torch.export is tracing.
        recorded: whether torch.jit.trace or torch.export records the operators, so
            that only plain ones are to be used. Before 2.7 torch doesn't tell the
            latter from torch.compile: there the graphs that it compiles are made of
            plain operators, too.
        free_format: whether they are recorded for sure, and what runs the record
            chooses the memory format.
        transformed: see :func:`transforms_active`.
        autocast: the dtype of convolutions under autocast; None where it is off.
    """

    device_type: str
    channels_last: bool
    compiling: bool
    recorded: bool
    free_format: bool
    transformed: bool
    autocast: torch.dtype | None

    def result_dtype(self, x: Tensor) -> torch.dtype:
        """Of torch's own convolution of ``x``."""
        if self.autocast is None or x.dtype == torch.float64:
            return x.dtype
        return self.autocast

    def without_autocast(self) -> AbstractContextManager:
        """A context in which operators keep the dtypes that they are given."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device_type, enabled=False)


def ask(x: Tensor) -> TorchState:
    """All that a call has to know, asked once."""
    device_type = x.device.type
    try:
        autocast = torch.is_autocast_enabled(device_type)
    except RuntimeError:  # a device that knows no autocast, such as 'meta'
        autocast = False
    compiling = torch.compiler.is_compiling()
    traced = torch.jit.is_tracing()
    # None where torch can't be asked.
    exporting = compiling and getattr(torch.compiler, 'is_exporting', _unknown)()
    transformed = transforms_active(x)
    return TorchState(
        device_type,
        x.ndim in CHANNELS_LAST and not transformed and _is_channels_last(x),
        compiling,
        traced or exporting is not False,
        traced or exporting is True,
        transformed,
        torch.get_autocast_dtype(device_type) if autocast else None,
    )


class ConvolutionCall:
    """The checked arguments of one convolution.

    Attributes:
        x: (batch, in, *size).
        kernel: (out, in // groups, *extent).
        bias: (out,) or None. Its dtype is the kernel's and that of ``x``, or will be
            by autocast.
        stride: one an axis.
        padding: zeros before and after, one an axis.
        groups: divides the input and the output channels.
    """

    def __init__(
        self,
        x: Tensor,
        kernel: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        groups: int,
        state: TorchState | None = None,
    ):
        self.x, self.kernel, self.bias = x, kernel, bias
        self.stride, self.padding, self.groups = stride, padding, groups
        self._state = state

    @property
    def state(self) -> TorchState:
        """Asked when it is first needed: for most small kernels it is not."""
        if self._state is None:
            self._state = ask(self.x)
        return self._state


def _is_channels_last(x: Tensor) -> bool:
    """Whether torch takes ``x``, (batch, channels, *size), for channels_last.

    It does if the strides grow from the channels by the last axis to the batch. So may
    those of a part of a channels_last tensor, which is not contiguous in any format.
    """
    strides = x.stride()
    if strides[1] != 1:
        return False
    shape = x.shape
    least = shape[1]
    for axis in (*range(x.ndim - 1, 1, -1), 0):
        if strides[axis] < least:
            return False
        # Strides that are all 1 are those of a single pixel and channel.
        if axis == 0 and least == 1:
            return False
        least = strides[axis] * shape[axis]
    return least > 0


def in_format(state: TorchState, y: Tensor) -> Tensor:
    """``y``, a convolution of a batch, in the memory format of that.

    torch's own takes over the kernel's as well. Contiguous unless channels_last.
    """
    if state.free_format:
        return y
    if state.channels_last:
        return y.contiguous(memory_format=CHANNELS_LAST[y.ndim])
    return y.contiguous()


def copy_by_rows(target: Tensor, source: Tensor) -> None:
    """``target.copy_(source)`` for (batch, channels, height, width), row by row.

    From channels_last to contiguous memory torch goes through the whole image once a
    channel, which is several times slower once an image is larger than the cache.
    """
    bytes_a_row = source[0, :, 0].numel() * source.element_size()
    rows = max(1, BLOCK_BYTES // bytes_a_row)
    for to, of in zip(target.split(rows, 2), source.split(rows, 2)):
        to.copy_(of)


def column(values: Sequence[int], like: Tensor) -> Tensor:
    """A number for each row of ``like``, as (rows, 1, ..., 1), in its dtype.

    Filled in on the device: what is made on the host would have to be copied there.
    """
    shape = (1,) * like.ndim
    return torch.cat(
        [torch.full(shape, v, dtype=like.dtype, device=like.device) for v in values]
    )


def is_compiling() -> bool:
    """Whether torch.compile or torch.export is tracing the call."""
    return torch.compiler.is_compiling()


def transforms_active(*tensors: Tensor) -> bool:
    """Whether a transform of torch.func or forward-mode differentiation is at work.

    They see through torch's operators only: not through an autograd function without
    rules for them, nor through the hooks of torch.utils.checkpoint; and a tensor that
    vmap batches (so does ``is_grads_batched``) has no memory format. torch has no
    public way to ask: without the private one all but such transforms works.
    """
    private = getattr(torch, '_C', None)
    if getattr(private, '_are_functorch_transforms_active', _no)():
        return True
    if torch.compiler.is_compiling():  # which can't trace what comes below
        return False
    functorch = getattr(private, '_functorch', None)
    batched = getattr(functorch, 'is_legacy_batchedtensor', _no)
    level = getattr(forward_ad, '_current_level', -1)
    return level >= 0 or any(map(batched, tensors))


def _no(*_) -> bool:
    """The answer where torch can't be asked."""
    return False


def _unknown() -> None:
    """The answer where torch can't be asked, and another question is to tell."""
