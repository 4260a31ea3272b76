"""Where modules stand in a model: under every name, also where one has several."""

from typing import TypeVar

from torch import nn

M = TypeVar('M', bound=nn.Module)

# torch.compile's wrapper keeps the module under this name, and a call compiled for it:
# another module put there would not run.
_COMPILED = '._orig_mod'


def find_places(
    model: nn.Module, kind: type[M] | tuple[type[M], ...]
) -> dict[M, list[str]]:
    """Every module of a kind, with all its dotted names, in the order of the model.

    Of a module that torch.compile wraps, the names are the wrapper's. ``model`` itself
    has the name ''.
    """
    places: dict[M, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, kind):
            places.setdefault(module, []).append(_without_wrapper(name))
    return places


def put(model: nn.Module, names: list[str], module: nn.Module) -> None:
    """Let ``module`` stand in a model under all these names, as :func:`find_places`."""
    for name in names:
        parent, _, attribute = name.rpartition('.')
        setattr(model.get_submodule(parent), attribute, module)


def _without_wrapper(name: str) -> str:
    dotted = f'.{name}'
    while dotted.endswith(_COMPILED):
        dotted = dotted[: -len(_COMPILED)]
    return dotted[1:]
