"""What the functions ask of tensors and of torch."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Memory with the channels innermost, by the number of axes of a batch of images.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x``, (batch, channels, *size), has its channels innermost."""
    if x.ndim not in CHANNELS_LAST or x.stride(1) != 1 or transforms_active(x):
        return False
    channels_last = x.is_contiguous(memory_format=CHANNELS_LAST[x.ndim])
    return channels_last and not x.is_contiguous()


def autocast_enabled(device_type: str) -> bool:
    """torch.is_autocast_enabled(device_type), which torch < 2.4 has not.

    False for a device that knows no autocast, such as 'meta'.
    """
    try:
        return torch.is_autocast_enabled(device_type)
    except RuntimeError:
        return False
    except TypeError:
        if device_type == 'cpu':
            return torch.is_autocast_cpu_enabled()
        return torch.is_autocast_enabled()


def without_autocast(device_type: str) -> AbstractContextManager:
    """A context in which operators keep the dtypes that they are given."""
    if device_type in ('cpu', 'cuda'):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def is_compiling() -> bool:
    """Whether torch.compile or torch.export is tracing the call."""
    return _asks_compiler('is_compiling')


def is_recorded() -> bool:
    """Whether torch.jit.trace or torch.export is recording the operators."""
    return torch.jit.is_tracing() or _asks_compiler('is_exporting')


def _asks_compiler(question: str) -> bool:
    """An answer of torch.compiler, which has learnt them one after the other."""
    ask = getattr(getattr(torch, 'compiler', None), question, None)
    return ask is not None and ask()


def transforms_active(*tensors: Tensor) -> bool:
    """Whether a transform of torch.func or forward-mode differentiation is at work.

    They see through torch's operators only: not through an autograd function without
    rules for them, nor through the hooks of torch.utils.checkpoint; and a tensor that
    vmap batches (so does ``is_grads_batched``) has no memory format. torch has no
    public way to ask.
    """
    ask = getattr(torch._C, '_are_functorch_transforms_active', None)
    if ask is not None and ask():
        return True
    if is_compiling():  # which can't trace what comes below
        return False
    batched = getattr(torch._C._functorch, 'is_legacy_batchedtensor', lambda _: False)
    return forward_ad._current_level >= 0 or any(map(batched, tensors))
