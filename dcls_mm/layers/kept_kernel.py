"""A kernel that is kept while nothing that it was made from changes."""

from torch import Tensor, nn

from ..functional._torch import transforms_active

# The dictionaries of a module that its attributes are not in.
_HELD = ('_parameters', '_buffers', '_modules')


class KeptKernel:
    """A kernel, and by what to tell that a module would make the same again.

    From which attributes of the module, and of those inside it, the kernel is made is
    not known: it stands while all are the same objects, and no tensor among them is
    written to. This is asked in every call: it goes by ids, which C gathers quickly,
    and what is a tensor was found out before.

    Args:
        module: gets this as its attribute ``_kept_kernel``.
        kernel: what it has made.
        things: what it may be made from, see :func:`made_from`.
    """

    def __init__(self, module: nn.Module, kernel: Tensor, things: list):
        self.kernel = kernel
        self._inner = list(module.modules())[1:]  # not itself, which would be a cycle
        # Held, lest a new thing takes an old one's id.
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
    """What a module may make its kernel from: all that it and those inside it have.

    None if a change could not be told: torch counts no writes to inference tensors, and
    what stands in for a tensor may have no memory of its own.
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
