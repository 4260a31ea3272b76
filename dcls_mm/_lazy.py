"""Names of a package that are imported when they are asked for (PEP 562)."""

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module

from . import _versions


def lazy_names(
    package: str, names: Mapping[str, Collection[str]]
) -> tuple[Callable, Callable]:
    """``__getattr__`` and ``__dir__`` of a package whose names come from modules in it.

    Nothing is kept, so that after a reload of a module its names are the new ones.
    ``__dir__`` leaves out what can't be imported here, as ``help`` asks for all of it.

    Args:
        package: its ``__name__``.
        names: module inside the package -> what it has of the package's names.

    Raises:
        ImportError: by ``__getattr__``: the name needs a package that is not installed.
        AttributeError: by ``__getattr__``: there is no such name.
    """
    modules = {name: module for module, having in names.items() for name in having}

    def __getattr__(name: str):
        if name not in modules:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        try:
            return getattr(import_module(f'{package}.{modules[name]}'), name)
        except ModuleNotFoundError as error:
            missing = str(error.name).partition('.')[0]
            if missing not in _versions.SUPPORTED:
                raise
            raise ImportError(
                f'{package}.{name} needs {missing}, which is not installed; '
                + _versions.remedy(missing)
            ) from error

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *filter(is_here, modules)})

    def is_here(name: str) -> bool:
        try:
            __getattr__(name)
        except ImportError:
            return False
        return True

    return __getattr__, __dir__
