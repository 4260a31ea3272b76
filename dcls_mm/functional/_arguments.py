"""Argument checks that functions and layers share."""

import math
import numbers
import operator
from collections.abc import Collection

from torch import Tensor

IntOrTuple = int | tuple[int, ...]


def as_int(name: str, value: int, minimum: int) -> int:
    """Return ``value`` as an int of at least ``minimum``, or raise an error."""
    if type(value) is int and value >= minimum:  # the usual case, checked per call
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f'{name} must be an integer, got {value!r}') from None
    if number < minimum:
        raise ValueError(f'{name} must be at least {minimum}, got {number}')
    return number


def as_tuple(name: str, value: IntOrTuple, ndim: int, minimum: int) -> tuple[int, ...]:
    """Return ``value``, one int or one per axis, as a tuple of ``ndim`` ints."""
    if type(value) is int and value >= minimum:  # the usual case, checked per call
        return (value,) * ndim
    if isinstance(value, (str, bytes, dict, set)):  # iterable, but not by axis
        raise TypeError(
            f'{name} must be an integer or a tuple of {ndim}, got {value!r}'
        )
    try:
        values = tuple(value)  # type: ignore[arg-type]
    except TypeError:  # one number, or a tensor or array without axes
        return (as_int(name, value, minimum),) * ndim  # type: ignore[arg-type]
    if len(values) != ndim:
        raise ValueError(
            f'{name} must be one integer or {ndim} of them, one per axis, got {value!r}'
        )
    return tuple(as_int(name, v, minimum) for v in values)


def as_bool(name: str, value: bool) -> bool:
    """Return ``value`` if it is True or False, or raise an error."""
    if isinstance(value, bool):
        return value
    raise TypeError(f'{name} must be True or False, got {value!r}')


def as_float(
    name: str, value: float, minimum: float = -math.inf, maximum: float = math.inf
) -> float:
    """Return ``value`` as a finite float in the given range, or raise an error."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f'{name} must be a number, got {value!r}')
    try:
        number = float(value)
    except OverflowError:  # an integer with hundreds of digits
        number = math.inf
    if not math.isfinite(number) or not minimum <= number <= maximum:
        raise ValueError(f'{name} must be {_range(minimum, maximum)}, got {value!r}')
    return number


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise a ValueError unless ``value`` is one of the names ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f'{name} must be one of {list(choices)}, got {value!r}')


def check_floating(name: str, value: Tensor) -> None:
    """Raise a TypeError unless ``value`` is a tensor of real floating dtype."""
    if not isinstance(value, Tensor):
        came = value if value is None else f'a {type(value).__name__}'
        raise TypeError(f'{name} must be a torch.Tensor, got {came}')
    if not value.is_floating_point():
        raise TypeError(
            f'{name} must be of a floating dtype such as torch.float32, '
            f'got {value.dtype}'
        )


def check_bias(bias: Tensor | None, out: int) -> None:
    if bias is None:
        return
    check_floating('bias', bias)
    if bias.shape != (out,):
        raise ValueError(f'bias must have the shape ({out},), got {tuple(bias.shape)}')


def check_elements(weight: Tensor, positions: Tensor) -> None:
    """Raise an error unless weight and positions are floating tensors that fit."""
    check_floating('weight', weight)
    check_floating('positions', positions)
    if weight.ndim == 0 or weight.shape[-1] == 0:
        raise ValueError(
            'weight must have the shape (*kernels, count), for a convolution '
            '(out, in // groups, count), with at least one element, got '
            f'{tuple(weight.shape)}'
        )
    wanted, given = tuple(weight.shape), tuple(positions.shape)
    if len(given) != len(wanted) + 1 or any(
        size not in (1, full) for size, full in zip(given[1:], wanted)
    ):
        raise ValueError(
            f'positions must have the shape (ndim, {", ".join(map(str, wanted))}) '
            f"to fit weight's {wanted}, or 1 in an axis that shares them, got {given}"
        )
    if not 1 <= given[0] <= 3:
        raise ValueError(f'positions must have 1, 2 or 3 rows, got {given[0]}')


def check_sigma(
    sigma: Tensor | None, positions: Tensor, name: str, wanted: bool
) -> None:
    """Raise an error unless sigma is given exactly if interpolation ``name`` has it."""
    if wanted and sigma is None:
        raise ValueError(f'interpolation {name!r} needs sigma, shaped like positions')
    if not wanted and sigma is not None:
        raise ValueError(f'interpolation {name!r} has no sigma: leave it None')
    if sigma is None:
        return
    check_floating('sigma', sigma)
    if sigma.shape != positions.shape:
        raise ValueError(
            f'sigma must be shaped like positions, {tuple(positions.shape)}, '
            f'got {tuple(sigma.shape)}'
        )


def _range(minimum: float, maximum: float) -> str:
    """Describe a number from ``minimum`` to ``maximum``, for an error."""
    limits = [('at least', minimum, -math.inf), ('at most', maximum, math.inf)]
    said = [f'{words} {limit:g}' for words, limit, none in limits if limit != none]
    return ' and '.join(['finite', *said])
