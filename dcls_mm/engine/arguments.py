"""Arguments of what a config builds, checked as those of layers are."""

from typing import Any, Callable, TypeVar

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
