"""A kernel that is kept until something that it was made from changes."""

from torch import Tensor, nn

from ..functional._torch import transforms_active
from ..functional.operators.direct import taps_of_kernel
from ..functional.sparse_kernel import SparseKernel

# The dictionaries with a module's parameters, buffers and modules.
_HELD = ('_parameters', '_buffers', '_modules')


class KeptKernel:
    """A kernel, and the state by which to tell whether its module would still make it.

    It is unknown which attributes of the module, and of those inside it, the kernel
    depends on. So it is valid while all of them are the same objects, and no tensor
    among them is written to. As this is checked in every call, it compares ids, which
    are gathered quickly, and the tensors are listed beforehand.

    Args:
        module: the module; gets this as its attribute ``_kept_kernel``.
        kernel: the kernel that it has made.
        things: what it may be made from, see :func:`made_from`.
    """

    def __init__(self, module: nn.Module, kernel: Tensor, things: list):
        self.kernel = kernel
        self.sparse: Tensor | SparseKernel = kernel
        if kernel.shape[1] == 1 and kernel.ndim < 5:  # only depthwise taps are listed
            image = kernel.unsqueeze(2) if kernel.ndim == 3 else kernel
            self.sparse = SparseKernel(
                kernel.shape,
                kernel,
                dense=lambda: kernel,
                content=lambda: taps_of_kernel(image),
            )
        self._inner = list(module.modules())[1:]  # without itself, to avoid a cycle
        # Keeps the objects alive, so that no new one can have an old one's id.
        self._things = things
        self._tensors = _tensors(things)
        module._kept_kernel = self  # type: ignore[assignment]
        self._state = self._state_of(module)

    def stands(self, module: nn.Module) -> bool:
        return self._state_of(module) == self._state

    def _state_of(self, module: nn.Module) -> tuple[list, list]:
        ids: list[int] = []
        for part in (module, *self._inner):
            attributes = vars(part)
            ids += map(id, attributes.values())
            for held in _HELD:
                ids += map(id, attributes[held].values())
        return ids, [(t._version, t.data_ptr()) for t in self._tensors]


def made_from(module: nn.Module) -> list | None:
    """Return all attributes of a module and those inside it, which may form its kernel.

    Return None if a change could go unnoticed: torch counts no writes to inference
    tensors, and subclasses of Tensor may have no memory of their own.
    """
    things: list = []
    for part in module.modules():
        attributes = vars(part)
        things += (v for k, v in attributes.items() if k != '_kept_kernel')
        for held in _HELD:
            things += attributes[held].values()
    tensors = _tensors(things)
    told = all(type(t) in (Tensor, nn.Parameter) for t in tensors)
    if not told or any(t.is_inference() for t in tensors):
        return None
    return None if transforms_active(*tensors) else things


def _tensors(things: list) -> list[Tensor]:
    return [thing for thing in things if isinstance(thing, Tensor)]
