"""Where modules are in a model, under all of their names."""

from typing import TypeVar

from torch import nn

M = TypeVar('M', bound=nn.Module)

# torch.compile's wrapper keeps the module under this name, with a call compiled for it.
# A module put there instead would not run.
_COMPILED = '._orig_mod'


def find_places(
    model: nn.Module, kind: type[M] | tuple[type[M], ...]
) -> dict[M, list[str]]:
    """Find every module of a kind, with all its dotted names, in the model's order.

    A module that torch.compile has wrapped goes by the wrapper's names. ``model``
    itself has the name ''.
    """
    places: dict[M, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, kind):
            places.setdefault(module, []).append(_without_wrapper(name))
    return places


def put(model: nn.Module, names: list[str], module: nn.Module) -> None:
    """Put ``module`` into a model under names that :func:`find_places` gave."""
    for name in names:
        parent, _, attribute = name.rpartition('.')
        setattr(model.get_submodule(parent), attribute, module)


def _without_wrapper(name: str) -> str:
    dotted = f'.{name}'
    while dotted.endswith(_COMPILED):
        dotted = dotted[: -len(_COMPILED)]
    return dotted[1:]
