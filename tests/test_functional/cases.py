"""Generated convolutions of elements, for the properties in ``test_generated.py``."""

import math
from typing import NamedTuple

import torch
from hypothesis import strategies as st

from dcls_mm.functional import INTERPOLATIONS


def uniform(shape, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(shape, dtype=torch.float64)


def whole(shape, low, high):
    return torch.randint(low, high + 1, shape).double()


def either(shape, one, other):
    return torch.where(torch.rand(shape) < 0.5, one, other).double()


# Kind -> (shape, first tap, last tap) -> positions.
POSITIONS = {
    'inside': uniform,
    'border': either,
    'beyond': lambda shape, first, last: either(
        shape, uniform(shape, first - 1.5, first), uniform(shape, last, last + 1.5)
    ),
    'far': lambda shape, first, last: either(shape, first - 30.25, last + 30.25),
    'whole': lambda shape, first, last: whole(shape, first - 2, last + 2),
    'half': lambda shape, first, last: whole(shape, first - 2, last + 1) + 0.5,
}
SIGMAS = {
    'random': lambda shape: uniform(shape, -1, 1),
    'zero': lambda shape: torch.zeros(shape, dtype=torch.float64),
    'half': lambda shape: torch.full(shape, -0.5, dtype=torch.float64),
    'wide': lambda shape: uniform(shape, 0, 4),
}


def one_of(kinds, table, shape, *limits):
    """Choose one of the kinds at random for each entry, and return the values."""
    choices = torch.stack([table[kind](shape, *limits) for kind in kinds])
    return choices.gather(0, torch.randint(len(kinds), (1, *shape)))[0]


class Case(NamedTuple):
    """A convolution of elements; see :func:`cases`."""

    interpolation: str
    extent: tuple[int, ...]
    count: int
    groups: int
    group_in: int
    group_out: int
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    padding_mode: str
    size: tuple[int, ...]
    shared: bool
    has_bias: bool
    position_kinds: list[str]
    sigma_kinds: list[str]

    @property
    def ndim(self):
        return len(self.extent)

    @property
    def channels(self):
        return self.groups * self.group_in, self.groups * self.group_out

    @property
    def convolution(self):
        names = ('stride', 'padding', 'groups', 'padding_mode')
        return {name: getattr(self, name) for name in names}

    def elements(self, *kernels):
        """Return weight (*kernels, count), positions and sigma, of mixed kinds."""
        placed = (1 if self.shared else kernels[0], *kernels[1:], self.count)
        rows = []
        for size in self.extent:
            limits = -(size // 2), size - 1 - size // 2
            rows.append(one_of(self.position_kinds, POSITIONS, placed, *limits))
        sigma = None
        if INTERPOLATIONS[self.interpolation].has_sigma:
            sigma = leaf(one_of(self.sigma_kinds, SIGMAS, (self.ndim, *placed)))
        return random(*kernels, self.count), leaf(torch.stack(rows)), sigma

    def bias(self):
        return random(self.channels[1]) if self.has_bias else None

    def padded(self, x):
        """Pad ``x``, pixel by pixel."""
        for axis, (size, (before, after)) in enumerate(zip(self.size, self.sides)):
            pixels = [
                PIXELS[self.padding_mode](i, size) for i in range(-before, size + after)
            ]
            zero = torch.zeros_like(x.select(2 + axis, 0))
            x = torch.stack(
                [zero if i is None else x.select(2 + axis, i) for i in pixels], 2 + axis
            )
        return x

    @property
    def sides(self):
        if self.padding == 'valid':
            return [(0, 0)] * self.ndim
        if self.padding == 'same':
            return [((size - 1) // 2, size // 2) for size in self.extent]
        return [(p, p) for p in self.padding]

    def least_size(self):
        """Return the least size with an output pixel and what padding reads."""
        read = {'reflect': 1, 'circular': 0}.get(self.padding_mode)
        return tuple(
            max(k - sum(sides), 1 if read is None else max(sides) + read, 1)
            for k, sides in zip(self.extent, self.sides)
        )

    def products(self):
        """Count the pairs of pixel and tap, which the loops visit one by one."""
        pixels = [
            (n + sum(sides) - k) // step + 1
            for n, sides, k, step in zip(
                self.size, self.sides, self.extent, self.stride
            )
        ]
        return math.prod((*pixels, *self.extent))


# More would take the loops seconds.
MOST_PRODUCTS = 400

# Padding mode -> which of n pixels is read at index i, possibly outside.
PIXELS = {
    'zeros': lambda i, n: i if 0 <= i < n else None,
    'replicate': lambda i, n: min(max(i, 0), n - 1),
    'circular': lambda i, n: i % n,
    'reflect': lambda i, n: n - 1 - abs(n - 1 - abs(i)),
}


def leaf(tensor):
    return tensor.detach().requires_grad_()


def random(*shape):
    return leaf(torch.randn(shape, dtype=torch.float64))


@st.composite
def cases(draw, interpolations=tuple(INTERPOLATIONS), axes=(1, 2, 3)):
    ndim = draw(st.sampled_from(axes))
    largest = {1: 6, 2: 6, 3: 4}[ndim]

    def a_tuple(*limits):
        return tuple(draw(st.integers(*limits)) for _ in range(ndim))

    extent = a_tuple(1, largest)
    padding = draw(st.sampled_from(['little', 'any', 'any', 'same', 'valid']))
    stride = (1,) * ndim if padding == 'same' else a_tuple(1, 3)
    if padding == 'little':
        padding = a_tuple(0, 2)
    elif padding == 'any':
        padding = tuple(draw(st.sampled_from(range(3 * size + 1))) for size in extent)
    groups, group_in, group_out = draw(
        st.sampled_from([(1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 1, 2), (3, 1, 1)])
    )
    case = Case(
        draw(st.sampled_from(interpolations)),
        extent,
        draw(st.sampled_from([1, 2, 3, max(extent) + 2])),
        groups,
        group_in,
        group_out,
        stride,
        padding,
        draw(st.sampled_from(['zeros', 'reflect', 'replicate', 'circular'])),
        (),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.lists(st.sampled_from(list(POSITIONS)), min_size=1, unique=True)),
        draw(st.lists(st.sampled_from(list(SIGMAS)), min_size=1, unique=True)),
    )
    torch.manual_seed(draw(st.integers(0, 2**16)))
    case = case._replace(size=case.least_size())
    if case.products() > MOST_PRODUCTS and padding not in ('same', 'valid'):
        case = case._replace(padding=tuple(min(p, 2) for p in case.padding))
        case = case._replace(size=case.least_size())
    return case._replace(
        size=tuple(n + more for n, more in zip(case.size, a_tuple(0, 2)))
    )
