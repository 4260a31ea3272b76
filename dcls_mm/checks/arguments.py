"""Options of commands, and arguments of what a config builds."""

from collections.abc import Callable
from typing import Any, TypeVar

from ..functional._arguments import as_float
from .errors import ConfigError

T = TypeVar('T')


def checked(check: Callable[..., T], name: str, value: Any, **limits: Any) -> T:
    """``check(name, value, **limits)``, of functional/_arguments.py.

    Raises:
        ConfigError: what the check raises, so that a command ends with its sentence.
    """
    try:
        return check(name, value, **limits)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def as_nonnegative(name: str, value: float) -> float:
    """``value`` as a finite float of at least 0, or a ConfigError that names it."""
    return checked(as_float, name, value, minimum=0)


def check_positive(**options: int) -> None:
    """Checks options, given by their names with ``_`` for ``-``.

    Raises:
        ConfigError: one is less than 1.
    """
    for name, value in options.items():
        if value < 1:
            option = name.replace('_', '-')
            raise ConfigError(f'--{option} must be at least 1, got {value}')
