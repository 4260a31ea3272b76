"""Published signatures with a few arguments besides the common ones."""

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter, Signature

EITHER, BY_NAME = Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY


def extends(
    common: Callable[..., None], before: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give an ``__init__`` the arguments of another one besides its own.

    The decorated function declares its own arguments as keyword-only and receives the
    others as ``**arguments``; callers may pass all of them by position or by name.

    Args:
        common: the other ``__init__``. An argument that the decorated function declares
            too keeps its place and takes the decorated function's default.
        before: the common argument before which new ones go; None puts them last.
    """

    def decorate(init: Callable[..., None]) -> Callable[..., None]:
        taken, own = _of_kind(common, EITHER), _of_kind(init, BY_NAME)
        order = list(taken)
        place = len(order) if before is None else order.index(before)
        order[place:place] = [name for name in own if name not in taken]
        merged = {**taken, **own}
        signature = Signature([merged[name].replace(kind=EITHER) for name in order])

        @functools.wraps(init)
        def by_position_or_name(*args, **kwargs) -> None:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f'{init.__qualname__}() {error}') from None
            init(**bound.arguments)

        by_position_or_name.__signature__ = signature  # type: ignore[attr-defined]
        return by_position_or_name

    return decorate


def _of_kind(function: Callable, kind) -> dict[str, Parameter]:
    parameters = inspect.signature(function).parameters
    return {name: one for name, one in parameters.items() if one.kind is kind}
