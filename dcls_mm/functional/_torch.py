"""What the functions ask of tensors and of torch."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Memory with the channels innermost, by the number of axes of a batch of images.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def is_channels_last(x: Tensor) -> bool:
    """Whether torch takes ``x``, (batch, channels, *size), for channels_last.

    It does if the strides grow from the channels by the last axis to the batch. So may
    those of a part of a channels_last tensor, which is not contiguous in any format.
    """
    if x.ndim not in CHANNELS_LAST or x.stride(1) != 1 or transforms_active(x):
        return False
    strides, shape = x.stride(), x.shape
    least = shape[1]
    for axis in (*range(x.ndim - 1, 1, -1), 0):
        if strides[axis] < least:
            return False
        # Strides that are all 1 are those of a single pixel and channel.
        if axis == 0 and least == 1:
            return False
        least = strides[axis] * shape[axis]
    return least > 0


def in_format_of(x: Tensor, y: Tensor) -> Tensor:
    """``y``, a convolution of the batch ``x``, in the memory format of ``x``.

    torch's own takes over the kernel's as well. Contiguous unless channels_last.
    """
    if torch.jit.is_tracing() or _is_exporting():
        return y
    if is_channels_last(x):
        return y.contiguous(memory_format=CHANNELS_LAST[x.ndim])
    return y.contiguous()


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """What autocast computes a convolution in on a device; None where it is off.

    And for a device that knows no autocast, such as 'meta'.
    """
    try:
        enabled = torch.is_autocast_enabled(device_type)
    except RuntimeError:
        return None
    return torch.get_autocast_dtype(device_type) if enabled else None


def without_autocast(device_type: str) -> AbstractContextManager:
    """A context in which operators keep the dtypes that they are given."""
    if device_type in ('cpu', 'cuda'):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def is_compiling() -> bool:
    """Whether torch.compile or torch.export is tracing the call."""
    return torch.compiler.is_compiling()


def is_recorded() -> bool:
    """Whether torch.jit.trace or torch.export is recording the operators.

    Before 2.7 torch doesn't tell the latter from torch.compile: there the graphs that
    it compiles are made of plain operators, too.
    """
    if torch.jit.is_tracing():
        return True
    exporting = _is_exporting()
    return is_compiling() if exporting is None else exporting


def _is_exporting() -> bool | None:
    """None where torch can't be asked."""
    return getattr(torch.compiler, 'is_exporting', _unknown)()


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
    if is_compiling():  # which can't trace what comes below
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
