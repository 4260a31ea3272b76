"""What is wrong with a config or an option, as a sentence for the user."""

from collections.abc import Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """A config, or an option, that can't be used as it is, and why."""


@contextmanager
def errors_about(source: str) -> Iterator[None]:
    """Makes a ValueError from inside a ConfigError that begins with ``source``."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f'{source}: {error}') from error


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Makes any error from inside a ConfigError that begins with ``what``.

    For other people's models in use that they were not written for, and for what
    records them, which raise errors of any type.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise ConfigError(f'{what}: {kind}: {first_line(error)}') from error


def first_line(error: Exception) -> str:
    """The first line of what an error says, or else its type."""
    return str(error).strip().partition('\n')[0] or type(error).__name__
