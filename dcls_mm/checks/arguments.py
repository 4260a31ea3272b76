"""Checks of commands' options and of the arguments of what a config builds."""

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from ..functional._arguments import as_float
from .errors import ConfigError

T = TypeVar('T')


def checked(check: Callable[..., T], name: str, value: Any, **limits: Any) -> T:
    """Call ``check(name, value, **limits)``, a check of functional/_arguments.py.

    Raises:
        ConfigError: what the check raises, so that a command ends with its message.
    """
    try:
        return check(name, value, **limits)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def as_nonnegative(name: str, value: float) -> float:
    """Return ``value`` as a finite float of at least 0, or raise a ConfigError."""
    return checked(as_float, name, value, minimum=0)


def check_option(option: str, value: str, choices: Collection[str]) -> None:
    """Raise a ConfigError unless an option is one of the choices."""
    if value not in choices:
        raise ConfigError(
            f'{option} must be one of {", ".join(choices)}, got {value!r}'
        )


def check_positive(**options: int) -> None:
    """Check options, given by their names with ``_`` instead of ``-``.

    Raises:
        ConfigError: one is less than 1.
    """
    for name, value in options.items():
        if value < 1:
            option = name.replace('_', '-')
            raise ConfigError(f'--{option} must be at least 1, got {value}')
