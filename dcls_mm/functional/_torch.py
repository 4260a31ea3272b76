"""What the functions ask of tensors and of torch."""

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x``, (batch, channels, height, width), has its channels innermost."""
    return (
        x.ndim == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
    )


def torch_func_active() -> bool:
    """Whether a transform of torch.func (vmap, jvp, ...) is tracing the call.

    They see through torch's operators only: not through an autograd function without
    rules for them, nor through the hooks of torch.utils.checkpoint. torch has no
    public way to ask.
    """
    ask = getattr(torch._C, '_are_functorch_transforms_active', None)
    return ask is not None and ask()
