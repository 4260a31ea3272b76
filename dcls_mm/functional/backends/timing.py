"""The choice of a shape's backend by timing those that support it."""

from types import ModuleType

import torch
from torch import Tensor

from .._arguments import as_bool
from .._torch import ConvolutionCall
from ..sparse_kernel import SparseKernel

REPEATS = 5

_fastest: dict[tuple, ModuleType] = {}


class autotune:
    """A switch that lets :func:`.convolve` time the backends and use the fastest.

    Each shape is timed once. Timing is off by default. Like
    torch.backends.cudnn.benchmark it pays off if shapes recur, and the choice, hence
    the rounding, may differ from run to run. A plain call switches it on or off for
    good, a ``with`` statement for its block::

        autotune()
        with autotune(False): ...

    It holds for all threads. It has no effect inside torch.compile, torch.jit.trace and
    the transforms of torch.func, nor where a backend is named.

    Args:
        enabled: whether to time the backends.

    Attributes:
        is_on: whether they are timed at present.

    Raises:
        TypeError: ``enabled`` is neither True nor False.

    Example:
        >>> import torch
        >>> from dcls_mm import DCLSConv2d, autotune
        >>> layer = DCLSConv2d(4, 4, 3, padding=1, dilated_kernel_size=9)
        >>> with autotune():
        ...     y = layer(torch.randn(1, 4, 16, 16))
    """

    is_on = False

    def __init__(self, enabled: bool = True):
        self._before, autotune.is_on = autotune.is_on, as_bool('enabled', enabled)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        autotune.is_on = self._before


def fastest(call: ConvolutionCall, candidates: list[ModuleType]) -> ModuleType:
    """Return the fastest of some backends that support the call."""
    if len(candidates) == 1:
        return candidates[0]
    key = _key(call)
    if key not in _fastest:
        _fastest[key] = min(candidates, key=lambda backend: _seconds(backend, call))
    return _fastest[key]


def _key(call: ConvolutionCall) -> tuple:
    """Return what the times depend on."""
    tensors = [call.image, call.source] + ([] if call.bias is None else [call.bias])
    return (
        *((t.device, t.dtype, t.shape, _needs_gradient(t)) for t in tensors),
        _count(call.source),
        call.stride,
        tuple(call.sides),
        call.groups,
        torch.get_num_threads(),
        call.state,
    )


def _seconds(backend: ModuleType, call: ConvolutionCall) -> float:
    """Time one call, with the gradients that the real one needs."""
    from torch.utils.benchmark import Timer  # here, as it takes a second to import

    image, kernel = _copy(call.image), call.source
    bias = None if call.bias is None else _copy(call.bias)
    if isinstance(kernel, Tensor):  # else it is constructed in every step
        kernel = _copy(kernel)
    shape = call.stride, call.sides, call.groups

    def step() -> None:
        trial = ConvolutionCall(image, kernel, bias, *shape, call.state)
        y = backend.convolve(trial)
        if y.requires_grad:
            torch.autograd.grad(y, _leaves(y), torch.ones_like(y))

    threads = torch.get_num_threads()
    timer = Timer('step()', globals=dict(step=step), num_threads=threads)
    return timer.timeit(REPEATS).mean


def _count(kernel: Tensor | SparseKernel) -> int | None:
    """Return the number on which the price of a sparse kernel depends."""
    if isinstance(kernel, Tensor):
        return None
    # On other devices the taps are not used, and listing them would wait.
    return kernel.content[0].numel() if kernel.device.type == 'cpu' else None


def _leaves(y: Tensor) -> list[Tensor]:
    """Return the tensors that a backward pass would give their ``grad``."""
    found, seen, left = [], set(), [y.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        left += [before for before, _ in node.next_functions]
        if hasattr(node, 'variable'):
            found.append(node.variable)
    return found


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(_needs_gradient(tensor))


def _needs_gradient(tensor: Tensor | SparseKernel) -> bool:
    return torch.is_grad_enabled() and tensor.requires_grad
