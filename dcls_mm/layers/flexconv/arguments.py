"""Checks of :class:`.flexconv.FlexConvNd`'s arguments, and the extent in taps."""

from collections.abc import Iterable

from ...functional._arguments import IntOrTuple, as_float, as_int

# Name -> extent, as a function of the input's length.
EXTENTS = {'full': lambda size: 2 * size - 1, 'same': lambda size: size}


def flex_extent(
    size: IntOrTuple | str | None, input_size: int | None, causal: bool
) -> IntOrTuple | None:
    """Return the argument dilated_kernel_size in taps."""
    if not isinstance(size, str):
        if input_size is not None:
            raise ValueError(
                "input_size is for dilated_kernel_size 'full' or 'same', got "
                f'{input_size} with {size!r}'
            )
        return size
    if size not in EXTENTS:
        raise ValueError(
            f'dilated_kernel_size must be numbers of taps or one of {list(EXTENTS)}, '
            f'got {size!r}'
        )
    if input_size is None:
        raise ValueError(f'dilated_kernel_size {size!r} needs input_size, in pixels')
    if causal and size == 'full':
        raise ValueError(
            "padding 'causal' reads only the input before each sample: take "
            "dilated_kernel_size 'same'"
        )
    return EXTENTS[size](as_int('input_size', input_size, minimum=1))


def check_odd(extent: tuple[int, ...]) -> None:
    if any(size % 2 == 0 for size in extent):
        raise ValueError(
            'dilated_kernel_size (or dilation * (kernel_size - 1) + 1, or input_size '
            "for 'same') must be odd, for a middle tap at 0, unless padding is "
            f"'causal', got {extent}"
        )


def checked_threshold(value: float | None) -> float | None:
    if value is not None and not 0 < as_float('crop_threshold', value) < 1:
        raise ValueError(f'crop_threshold must be in (0, 1), or None, got {value}')
    return value


def checked_interval(value: int | None) -> int | None:
    return None if value is None else as_int('crop_every', value, minimum=1)


def checked_width(
    value: float | tuple[float, ...] | None, ndim: int
) -> tuple[float, ...] | None:
    if value is None:
        return None
    if isinstance(value, Iterable) and not isinstance(value, str):
        widths = tuple(value)
    else:
        widths = (value,) * ndim
    if len(widths) != ndim or min(as_float('mask_width', w) for w in widths) <= 0:
        raise ValueError(
            f'mask_width must be one positive number or {ndim} of them, or None for no '
            f'mask, got {value}'
        )
    return widths
