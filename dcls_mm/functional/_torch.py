"""The description of a call, and what it needs to know of tensors and of torch."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .padding import pad
from .sparse_kernel import SparseKernel

# The channels_last memory formats, by the number of axes of a batch of images.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

# Bytes of the source copied at a time, so that they stay in the cache.
BLOCK_BYTES = 2**19


class TorchState(NamedTuple):
    """The state of a tensor and of torch, as far as a call needs to know it.

    Attributes:
        device_type: of the tensor.
        channels_last: whether torch takes the tensor for channels_last.
        compiling: whether torch.compile or torch.export is tracing.
        recorded: whether torch.jit.trace or torch.export is recording, so that only
            plain operators may be used. Before 2.7 torch doesn't distinguish the latter
            from torch.compile, whose graphs then consist of plain operators too.
        free_format: whether the operators are certainly recorded, so that whatever runs
            the record chooses the memory format.
        transformed: see :func:`transforms_active`.
        autocast: the dtype of convolutions under autocast; None if it is off.
    """

    device_type: str
    channels_last: bool
    compiling: bool
    recorded: bool
    free_format: bool
    transformed: bool
    autocast: torch.dtype | None

    @property
    def is_plain(self) -> bool:
        """Whether the operators only run: not traced, recorded or transformed."""
        return not (self.compiling or self.recorded or self.transformed)

    def result_dtype(self, x: Tensor | SparseKernel) -> torch.dtype:
        """Return the dtype of torch's own convolution of ``x``."""
        if self.autocast is None or x.dtype == torch.float64:
            return x.dtype
        return self.autocast

    def without_autocast(self) -> AbstractContextManager:
        """Return a context in which operators keep the dtypes that they are given."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device_type, enabled=False)


def ask(x: Tensor) -> TorchState:
    """Return all that a call on ``x`` needs to know, so that torch is asked once."""
    device_type = x.device.type
    try:
        autocast = torch.is_autocast_enabled(device_type)
    except RuntimeError:  # a device without autocast, such as 'meta'
        autocast = False
    compiling = torch.compiler.is_compiling()
    traced = torch.jit.is_tracing()
    # None if torch can't be asked.
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
        image: (batch, in, *size), to be padded by ``sides``.
        x: the same, to be padded by ``padding``: it includes the zeros that
            ``padding`` can't express, and lacks the pixels that ``sides`` removes.
        source: the kernel, dense or as what it is constructed from.
        kernel: the dense kernel, (out, in // groups, *extent).
        bias: (out,) or None. The tensors have one dtype, or will have under autocast.
        stride: one int per axis.
        sides: zeros (before, after) per axis. Negative numbers remove pixels.
        padding: zeros both before and after, one int per axis.
        groups: divides the input and the output channels.
    """

    def __init__(
        self,
        image: Tensor,
        kernel: Tensor | SparseKernel,
        bias: Tensor | None,
        stride: tuple[int, ...],
        sides: Sequence[tuple[int, int]],
        groups: int,
        state: TorchState | None = None,
    ):
        self.image, self.source, self.bias = image, kernel, bias
        self._kernel = kernel if isinstance(kernel, Tensor) else None
        self.stride, self.sides, self.groups = stride, sides, groups
        self._state = state
        before, after = zip(*sides)
        if before == after and min(before) >= 0:
            self.x, self.padding = image, before
        else:
            self.padding = (0,) * len(stride)

    @property  # not a cached one, whose lock torch.compile can't trace
    def kernel(self) -> Tensor:
        if self._kernel is None:
            assert isinstance(self.source, SparseKernel)
            self._kernel = self.source.dense()
        return self._kernel

    @cached_property
    def x(self) -> Tensor:
        return pad(self.image, self.sides, 'zeros')

    @property
    def state(self) -> TorchState:
        """The state of ``image``, asked for on first use; small kernels never do."""
        if self._state is None:
            self._state = ask(self.image)
        return self._state


def _is_channels_last(x: Tensor) -> bool:
    """Return whether torch takes ``x``, (batch, channels, *size), for channels_last.

    It does if the strides grow from the channels over the last axis up to the batch.
    Those of a slice of a channels_last tensor may too, though it is not contiguous in
    any format.
    """
    strides = x.stride()
    if strides[1] != 1:
        return False
    shape = x.shape
    least = shape[1]
    for axis in (*range(x.ndim - 1, 1, -1), 0):
        if strides[axis] < least:
            return False
        # With all strides 1 there is a single pixel and channel.
        if axis == 0 and least == 1:
            return False
        least = strides[axis] * shape[axis]
    return least > 0


def in_format(state: TorchState, y: Tensor) -> Tensor:
    """Return ``y``, a convolution of a batch, in the batch's memory format.

    That is contiguous unless channels_last. torch's own convolution also adopts the
    kernel's format.
    """
    if state.free_format:
        return y
    if state.channels_last:
        return y.contiguous(memory_format=CHANNELS_LAST[y.ndim])
    return y.contiguous()


def copy_by_rows(target: Tensor, source: Tensor) -> None:
    """Run ``target.copy_(source)`` for (batch, channels, height, width), row by row.

    To copy from channels_last to contiguous memory, torch reads the whole image once
    per channel. That is several times slower if the image is larger than the cache.
    """
    bytes_a_row = source[0, :, 0].numel() * source.element_size()
    rows = max(1, BLOCK_BYTES // bytes_a_row)
    for to, of in zip(target.split(rows, 2), source.split(rows, 2)):
        to.copy_(of)


def column(values: Sequence[int], like: Tensor) -> Tensor:
    """Return one number per row of ``like``, as (rows, 1, ..., 1), in its dtype.

    The tensor is filled on the device, as one made on the host would have to be copied.
    """
    shape = (1,) * like.ndim
    return torch.cat(
        [torch.full(shape, v, dtype=like.dtype, device=like.device) for v in values]
    )


def in_full(product: Callable[..., Tensor], *factors: Tensor) -> Tensor:
    """Return ``product(*factors)``, a matrix product that is never rounded to TF32.

    Where torch may round the factors of float32 products (to TF32 or bfloat16, after
    torch.set_float32_matmul_precision), it is computed in float64 and rounded once. So
    it is in a compiled graph for CUDA, as torch.compile can't ask.

    Args:
        product: torch.matmul, torch.nn.functional.linear or the like.
        factors: its arguments, of one dtype.
    """
    device_type = factors[0].device.type
    if factors[0].dtype == torch.float32 and (
        device_type == 'cuda'
        if torch.compiler.is_compiling()
        else _rounds_products(device_type)
    ):
        return product(*[factor.double() for factor in factors]).float()
    return product(*factors)


def _rounds_products(device_type: str) -> bool:
    """Return whether torch may round the factors of float32 products on a device."""
    backends = {'cpu': torch.backends.mkldnn, 'cuda': torch.backends.cuda}
    if device_type not in backends:
        return False
    settings = getattr(backends[device_type], 'matmul', None)
    precision = getattr(settings, 'fp32_precision', None)
    if precision is None:  # before torch 2.9, where this answers for all devices
        return torch.get_float32_matmul_precision() != 'highest'
    return precision not in ('ieee', 'none')


def capturing() -> bool:
    """Return whether a CUDA graph is being captured.

    Then nothing may be read by the host, and no result exists before the replay.
    """
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def transforms_active(*tensors: Tensor) -> bool:
    """Return whether a transform of torch.func or forward-mode AD is active.

    These support torch's own operators, but neither an autograd function without rules
    for them nor the hooks of torch.utils.checkpoint. A tensor batched by vmap (or by
    ``is_grads_batched``) has no memory format either. torch has no public way to ask;
    if the private one is missing, everything but such transforms works.
    """
    private = getattr(torch, '_C', None)
    if getattr(private, '_are_functorch_transforms_active', _no)():
        return True
    if torch.compiler.is_compiling():  # it can't trace the lines below
        return False
    functorch = getattr(private, '_functorch', None)
    batched = getattr(functorch, 'is_legacy_batchedtensor', _no)
    level = getattr(forward_ad, '_current_level', -1)
    return level >= 0 or any(map(batched, tensors))


def _no(*_) -> bool:
    """Return False, the answer where torch can't be asked."""
    return False


def _unknown() -> None:
    """Return None where torch can't be asked and another question decides."""
