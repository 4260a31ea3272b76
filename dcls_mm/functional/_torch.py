"""What the functions ask of tensors and of torch."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x``, (batch, channels, height, width), has its channels innermost."""
    return (
        x.ndim == 4
        and not transforms_active(x)
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
    )


def autocast_enabled(device_type: str) -> bool:
    """torch.is_autocast_enabled(device_type), which torch < 2.4 has not."""
    try:
        return torch.is_autocast_enabled(device_type)
    except TypeError:
        if device_type == 'cpu':
            return torch.is_autocast_cpu_enabled()
        return torch.is_autocast_enabled()


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
    batched = torch._C._functorch.is_legacy_batchedtensor
    return forward_ad._current_level >= 0 or any(map(batched, tensors))
