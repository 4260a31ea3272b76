"""The error about a config or an option, with a message for the user."""

from collections.abc import Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """A config or an option that can't be used; the message says why."""


@contextmanager
def errors_about(
    source: str, kinds: type[Exception] | tuple[type[Exception], ...] = ValueError
) -> Iterator[None]:
    """Turn errors from the block into a ConfigError that begins with ``source``.

    Args:
        source: what the errors are about.
        kinds: the types of errors.
    """
    try:
        yield
    except kinds as error:
        raise ConfigError(f'{source}: {first_line(error)}') from error


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn any error from the block into a ConfigError that begins with ``what``.

    This is for other people's models, used in ways they were not written for, and for
    what records them: both may raise errors of any type.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise ConfigError(f'{what}: {kind}: {first_line(error)}') from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or else its type."""
    return str(error).strip().partition('\n')[0] or type(error).__name__
