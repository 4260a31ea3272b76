"""The construction of kernels from elements, and its gradients.

With e over the elements of a kernel, and a profile for each axis that depends on the
element's position (and sigma) there:

    kernel[z, y, x] = sum_e  weight_e / total_e * profile_z * profile_y * profile_x

where total_e, the sum of the element's taps, is 1 for 'bilinear'. There are always
three axes: one that is missing has a single tap with an element exactly on it, which
changes nothing.

- ``spreading.py``: a program has a tile of one kernel's taps, [lines, columns] with a
  line for each (z, y), and adds up the elements, STEP at a time, so that their loads
  wait together. Each tap is written once, so the sums have a fixed order.
- ``collecting.py``: a program has STEP elements of one kernel and goes through the
  tiles of the kernel's gradient. Where only two taps per axis count, it reads these
  alone, for some elements of some kernels. Kernels that share positions get one
  gradient, the sum over them, from a second kernel.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ..interpolation import INTERPOLATIONS
from . import OPTIONS
from .collecting import collect_kernel, collect_two_taps_kernel, sum_shared_kernel
from .spreading import spread_kernel

# Elements of a program's step, taps of its tile, and taps of an axis summed at once.
STEP = 4
TILE = 128
CHUNK = 64

# Pairs of kernel and element in a program, where only two taps per axis count.
PAIRS = 128

# Numbers that a program adds up at once, and how many of them for one result.
SUMMED = 2048
REPEATS = 128


class Launch(NamedTuple):
    """One launch of a kernel.

    Attributes:
        kernel: the function that Triton compiles.
        grid: programs per axis.
        arguments: the tensors (or None) and ints that it is given, by name.
        constants: what it is compiled for, by name.
        warps: threads of a program, divided by 32.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    warps: int

    def run(self) -> None:
        with torch.cuda.device_of(next(iter(self.arguments.values()))):
            self.kernel[self.grid](
                **self.arguments, **self.constants, num_warps=self.warps, **OPTIONS
            )


class Sharing(NamedTuple):
    """How kernels share positions.

    Attributes:
        sizes: the grid of kernels, (outer, middle, inner), and the count of elements.
        own: the same where positions differ, and 1 where they are shared.
    """

    sizes: tuple[int, ...]
    own: tuple[int, ...]

    @property
    def kernels(self) -> int:
        return math.prod(self.sizes[:3])

    @property
    def shared(self) -> tuple[int, ...]:
        return tuple(size // own for size, own in zip(self.sizes, self.own))

    def arguments(self) -> dict[str, int]:
        """Return the kernels' arguments that say where an element's position is."""
        steps, row = [], 1
        for size, own in zip(reversed(self.sizes), reversed(self.own)):
            steps.append(row if own == size else 0)
            row *= own
        names = ('element_step', 'inner_step', 'middle_step', 'outer_step')
        _, middle, inner, count = self.sizes
        return dict(
            count=count, row=row, middle=middle, inner=inner, **dict(zip(names, steps))
        )


def sharing_of(weight: Tensor, positions: Tensor) -> Sharing | None:
    """Return how kernels share positions, or None if three axes can't express it.

    Neighbouring axes become one if both share, or neither.
    """
    *kernels, count = weight.shape
    *placed, own_count = positions.shape[1:]
    sizes: list[int] = []
    own: list[int] = []
    for size, other in zip(kernels, placed):
        if size == 1:
            continue
        if sizes and (own[-1] == sizes[-1]) == (other == size):
            sizes[-1] *= size
            own[-1] *= other
        else:
            sizes.append(size)
            own.append(other)
    fill = (1,) * (3 - len(sizes))
    if len(sizes) > 3:
        return None
    return Sharing((*fill, *sizes, count), (*fill, *own, own_count))


def construct(
    weight: Tensor,
    positions: Tensor,
    sigma: Tensor | None,
    extent: Sequence[int],
    interpolation: str,
    dtype: torch.dtype,
) -> Tensor:
    """Construct kernels as :func:`.construct_kernel` does, computing in float32.

    Args:
        weight: (*kernels, count), floating, with at least one kernel.
        positions, sigma: (ndim, *kernels, count), or 1 along an axis that shares them;
            sigma is None if the interpolation has none.
        extent: (ndim,).
        interpolation: a key of ``INTERPOLATIONS``.
        dtype: of the result.

    Returns:
        (*kernels, *extent).
    """
    sharing = sharing_of(weight, positions)
    if sharing is None:
        positions = _unshared(weight, positions)
        sigma = None if sigma is None else _unshared(weight, sigma)
        return construct(weight, positions, sigma, extent, interpolation, dtype)
    kernels = weight.new_empty((*weight.shape[:-1], *extent), dtype=dtype)
    inputs = (weight, positions, sigma)
    spreading(kernels, inputs, sharing, extent, interpolation).run()
    return kernels


def construct_gradient(
    grad_kernel: Tensor,
    weight: Tensor,
    positions: Tensor,
    sigma: Tensor | None,
    extent: Sequence[int],
    interpolation: str,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Return the gradients of :func:`construct`, computed in float32.

    Args:
        grad_kernel: (*kernels, *extent), floating.
        weight, positions, sigma, extent, interpolation: see there.
        wanted: whether to compute the gradient of weight, positions and sigma.

    Returns:
        Tensors like weight, positions and sigma; None where not wanted.
    """
    inputs = (weight, positions, sigma)
    sharing = sharing_of(weight, positions)
    if sharing is None:
        gradients = construct_gradient(
            grad_kernel,
            weight,
            _unshared(weight, positions),
            None if sigma is None else _unshared(weight, sigma),
            *(extent, interpolation, wanted),
        )
        return [
            gradient
            if like is None or gradient is None
            else gradient.sum_to_size(like.shape)
            for gradient, like in zip(gradients, inputs)
        ]
    gradients = [
        like.new_empty(like.shape) if want and like is not None else None
        for like, want in zip(inputs, wanted)
    ]
    for launch in collecting(
        grad_kernel, inputs, gradients, sharing, extent, interpolation
    ):
        launch.run()
    return gradients


def spreading(
    kernels: Tensor,
    inputs: Sequence[Tensor | None],
    sharing: Sharing,
    extent: Sequence[int],
    interpolation: str,
) -> Launch:
    """Return the launch that writes ``kernels``, given weight, positions and sigma."""
    axes, tile = _axes(extent), _tile(extent)
    lines = triton.cdiv(axes['DEPTH'] * axes['HEIGHT'], tile['LINES'])
    tiles = lines * triton.cdiv(axes['WIDTH'], tile['COLUMNS'])
    weight, positions, sigma = map(_contiguous, inputs)
    return Launch(
        spread_kernel,
        (sharing.kernels, tiles),
        dict(
            kernels=kernels,
            weight=weight,
            positions=positions,
            sigma=sigma,
            **sharing.arguments(),
        ),
        dict(axes, INTERPOLATION=interpolation, STEP=STEP, **tile),
        warps=1,
    )


def collecting(
    grad_kernel: Tensor,
    inputs: Sequence[Tensor | None],
    gradients: Sequence[Tensor | None],
    sharing: Sharing,
    extent: Sequence[int],
    interpolation: str,
) -> list[Launch]:
    """Return the launches that write ``gradients`` of weight, positions and sigma."""
    weight, positions, sigma = map(_contiguous, inputs)
    grad_weight, *grads = targets = list(gradients)
    kernels, count = sharing.kernels, sharing.sizes[3]
    summing = []
    if math.prod(sharing.shared) > 1 and grads != [None, None]:
        rows = [0 if gradient is None else len(gradient) for gradient in grads]
        parts = grad_kernel.new_empty((sum(rows), kernels, count), dtype=torch.float32)
        by_input = parts[: rows[0]], parts[rows[0] :]
        targets[1:] = [part if len(part) else None for part in by_input]
        summing.append(_summing(parts, grads, rows[0], sharing))
    arguments = dict(
        grad_kernel=_contiguous(grad_kernel),
        weight=weight,
        positions=positions,
        sigma=sigma,
        grad_weight=grad_weight,
        grad_positions=targets[1],
        grad_sigma=targets[2],
        kernels=kernels,
        **sharing.arguments(),
    )
    axes, rule = _axes(extent), INTERPOLATIONS[interpolation]
    if rule.two_taps:
        del arguments['sigma'], arguments['grad_sigma']
        elements = min(triton.next_power_of_2(count), PAIRS)
        block = dict(KERNELS=PAIRS // elements, ELEMENTS=elements)
        collect = Launch(
            collect_two_taps_kernel,
            (triton.cdiv(kernels, block['KERNELS']), triton.cdiv(count, elements)),
            arguments,
            dict(axes, NORMALIZED=rule.normalized, **block),
            warps=PAIRS // 32,
        )
    else:
        collect = Launch(
            collect_kernel,
            (kernels, triton.cdiv(count, STEP)),
            arguments,
            dict(axes, INTERPOLATION=interpolation, STEP=STEP, **_tile(extent)),
            warps=1,
        )
    return [collect, *summing]


def _summing(
    parts: Tensor, gradients: Sequence[Tensor | None], rows: int, sharing: Sharing
) -> Launch:
    """Return the launch that sums the parts of positions (``rows`` many) and sigma."""
    outputs, repeats = math.prod(sharing.own), math.prod(sharing.shared)
    at_once = min(triton.next_power_of_2(repeats), REPEATS)
    block = min(triton.next_power_of_2(outputs), SUMMED // at_once)
    names = ('middle', 'inner', 'count')
    return Launch(
        sum_shared_kernel,
        (triton.cdiv(outputs, block), len(parts)),
        dict(
            parts=parts,
            grad_positions=gradients[0],
            grad_sigma=gradients[1],
            outputs=outputs,
            repeats=repeats,
            **dict(zip(names, sharing.own[1:])),
            **{f'shared_{name}': n for name, n in zip(names, sharing.shared[1:])},
        ),
        dict(POSITION_ROWS=rows, OUTPUTS=block, REPEATS=at_once),
        warps=4,
    )


def _contiguous(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.contiguous()


def _unshared(weight: Tensor, values: Tensor) -> Tensor:
    return values.expand(-1, *weight.shape).contiguous()


def _axes(extent: Sequence[int]) -> dict[str, int]:
    """Return the extent on three axes, the missing ones first."""
    sizes = (1,) * (3 - len(extent)) + tuple(extent)
    return dict(NDIM=len(extent), **dict(zip(('DEPTH', 'HEIGHT', 'WIDTH'), sizes)))


def _tile(extent: Sequence[int]) -> dict[str, int]:
    """Return the lines and columns of a tile, and the taps summed along an axis."""
    *others, width = extent
    columns = min(triton.next_power_of_2(width), TILE)
    lines = min(triton.next_power_of_2(math.prod(others)), TILE // columns)
    chunk = min(triton.next_power_of_2(max(extent)), CHUNK)
    return dict(LINES=lines, COLUMNS=columns, CHUNK=chunk)
