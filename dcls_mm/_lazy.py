"""Names of a package that are imported on first use (PEP 562)."""

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module

from . import _versions


def lazy_names(
    package: str, names: Mapping[str, Collection[str]]
) -> tuple[Callable, Callable]:
    """Make ``__getattr__`` and ``__dir__`` for a package that imports its names lazily.

    Nothing is cached, so that reloading a module gives its new names. ``__dir__``
    leaves out what can't be imported here, because ``help`` gets every name that it
    lists.

    Args:
        package: the package's ``__name__``.
        names: module inside the package -> the names that it provides.

    Raises:
        ImportError: from ``__getattr__``, the name needs a package that isn't
            installed.
        AttributeError: from ``__getattr__``, there is no such name.
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
