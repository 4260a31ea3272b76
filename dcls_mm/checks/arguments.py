"""Arguments of what a config builds, checked as those of layers are."""

from collections.abc import Callable
from typing import Any, TypeVar

from ..functional._arguments import as_float
from .config_checks import ConfigError

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
