"""The local branch: a small dense kernel beside the elements, summed with theirs.

The sum of two convolutions is the convolution with the sum of their kernels, so the
branch costs no convolution of its own, neither in training nor when deployed.

With ``branch_norms`` a batch norm follows each: y = norm(x * K) + norm'(x * L) + bias.
Training then convolves twice, as the norms take the statistics of the batch. Those of
evaluation are constants, which scale the kernels, so that it convolves once.

Source: RepLKNet (arXiv 2203.06717), which trains large kernels beside small ones.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional._arguments import IntOrTuple, as_bool, as_tuple
from ..functional.scatter import construct_checked
from .geometry import margins
from .spacing import Spacing, times


def in_extent(local_weight: Tensor, extent: Sequence[int]) -> Tensor:
    """Return the kernel of a local branch with zeros around it, up to the extent."""
    pairs = margins(local_weight.shape[2:], extent)
    return F.pad(local_weight, [n for pair in reversed(pairs) for n in pair])


class LocalBranch(Spacing):
    """The part of :class:`.dcls.DCLSConvNd` that has the local branch.

    Its kernel ``local_weight``, (*kernel_channels, *local_size), is centred on the
    centre of the layer's own, tap ``extent // 2``. ``branch_norms`` has the norms of
    'elements' and 'local'. Each is None in a layer without.
    """

    local_size: tuple[int, ...] | None = None
    elements_from_zero = False
    local_weight: nn.Parameter | None
    branch_norms: nn.ModuleDict | None
    integer_positions: bool

    def register_local(
        self,
        local_size: IntOrTuple | None,
        branch_norms: bool,
        elements_from_zero: bool,
        device=None,
        dtype=None,
    ) -> None:
        """Create ``local_weight`` and ``branch_norms``, or None.

        Raises:
            ValueError, TypeError: an argument doesn't fit; the message names it.
        """
        self.local_size = self._checked_size(local_size)
        parameter = None
        if self.local_size is not None:
            shape = (*self.kernel_channels, *self.local_size)
            parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.register_parameter('local_weight', parameter)
        self.branch_norms = None
        self.elements_from_zero = as_bool('elements_from_zero', elements_from_zero)
        if self.elements_from_zero and (parameter is None or branch_norms):
            raise ValueError(
                'elements_from_zero needs a local branch without norms, which computes '
                'something at the start: give local_size, and leave out branch_norms, '
                f'got local_size={local_size} and branch_norms={branch_norms}'
            )
        if not as_bool('branch_norms', branch_norms):
            return
        if parameter is None:
            raise ValueError(
                'branch_norms needs a local branch: give local_size, or leave it out'
            )
        norm = getattr(nn, f'BatchNorm{self.ndim}d')
        self.branch_norms = nn.ModuleDict(
            {
                branch: norm(self.out_channels, device=device, dtype=dtype)
                for branch in ('elements', 'local')
            }
        )

    def reset_parameters(self) -> None:
        """Set the initial values; the local branch's are those of a torch.nn.ConvNd."""
        super().reset_parameters()
        if self.local_weight is not None:
            nn.init.kaiming_uniform_(self.local_weight, a=math.sqrt(5))
        norms: Any = self.branch_norms or {}
        for norm in norms.values():
            norm.reset_parameters()

    def norms_train(self) -> bool:
        """Return whether a norm takes the statistics of the batch.

        They, not the layer, decide, as they may be in evaluation alone ('norm_eval').
        """
        norms = self.branch_norms
        return norms is not None and any(norm.training for norm in norms.values())

    def add_normed(self, elements: Tensor, local: Tensor) -> Tensor:
        """Return the layer's output from those of its branches, in training."""
        assert self.branch_norms is not None
        y = self.branch_norms['elements'](elements) + self.branch_norms['local'](local)
        if self.bias is None:
            return y
        return y + self.bias.to(y.dtype).view(-1, *(1,) * self.ndim)

    def with_local_kernel(self, kernel: Tensor) -> Tensor:
        """Return the kernel of the elements plus that of the local branch, if any."""
        if self.local_weight is None:
            return kernel
        local = self.local_kernel()
        if self._spacing is None:
            local = in_extent(local, self.extent)
        return self._normed('elements', kernel) + self._normed('local', local)

    def local_kernel(self) -> Tensor:
        """Return the kernel of the local branch.

        It has ``local_size`` taps, or those of ``kernel_extent`` where ``spacing`` has
        moved its taps: each is then a 'bilinear' element.
        """
        assert self.local_weight is not None
        if self._spacing is None:
            return self.local_weight
        weight, places = self.local_elements(self.local_weight.flatten(2)[None])
        return construct_checked(weight, places, None, self.kernel_extent, 'bilinear')

    def with_local_elements(
        self, weight: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return elements and, if there is a local branch, those on its taps.

        Args:
            weight, positions: (out, in // groups, n) and (ndim, out or 1, in // groups,
                n), in pixels.
        """
        if self.local_weight is None:
            return weight, positions
        local, places = self.local_elements(positions)
        weights = [self._normed('elements', weight), self._normed('local', local)]
        return torch.cat(weights, -1), torch.cat([positions, places], -1)

    def local_elements(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight and positions of an element on each tap of the local branch.

        On a whole pixel an element of 'bilinear' or 'triangle' is one tap. The
        positions are shaped as those of other elements, ``like``, and multiplied by the
        layer's ``spacing``.
        """
        assert self.local_weight is not None
        taps = [
            torch.arange(-(n // 2), n - n // 2, dtype=like.dtype, device=like.device)
            for n in self.local_weight.shape[2:]
        ]
        places = torch.stack(torch.meshgrid(*taps, indexing='ij')).flatten(1)
        if self._spacing is not None:
            places = times(places, self._spacing)
            if self.integer_positions and not self.training:
                places = places.round()
        places = places[:, None, None].expand(self.ndim, *like.shape[1:-1], -1)
        return self.local_weight.flatten(2), places

    def kernel_bias(self) -> Tensor | None:
        """See the base class; includes what the norms add in evaluation."""
        if self.branch_norms is None:
            return self.bias
        _, bias = _scale_and_offset(self.branch_norms['elements'])
        _, more = _scale_and_offset(self.branch_norms['local'])
        bias = bias + more if self.bias is None else bias + more + self.bias
        return bias.to(self.weight.dtype)

    def _normed(self, branch: str, weight: Tensor) -> Tensor:
        """Return a weight, (out, ...), times the scale of a branch's norm, if any."""
        if self.branch_norms is None:
            return weight
        scale, _ = _scale_and_offset(self.branch_norms[branch])
        return (weight * scale.view(-1, *(1,) * (weight.ndim - 1))).to(weight.dtype)

    def misreading(
        self, state_dict: Mapping, prefix: str, notes: Mapping[str, Any]
    ) -> str | None:
        """See the base class; compare the local branches, which must not be lost."""
        key = f'{prefix}local_weight'
        norms = f'{prefix}branch_norms.local.weight'
        size = tuple(state_dict[key].shape[2:]) if key in state_dict else None
        if size not in (None, self.local_size):
            own = 'none' if self.local_size is None else self.local_size
            return (
                f'{key}: the state_dict is of a layer with a local branch of {size}, '
                f'this one has {own}: build a DCLSConv{self.ndim}d with '
                f'local_size={size}'
            )
        if norms in state_dict and self.branch_norms is None:
            return (
                f'{norms}: the state_dict is of a layer with norms, this one has none: '
                'build it with branch_norms=True'
            )
        return super().misreading(state_dict, prefix, notes)

    def _checked_size(self, local_size: IntOrTuple | None) -> tuple[int, ...] | None:
        """Return the size per axis; one int is that of the learned axes."""
        if local_size is None:
            return None
        sizes = as_tuple('local_size', local_size, self.ndim, minimum=1)
        if not isinstance(local_size, Iterable):
            sizes = tuple(
                self.extent[axis] if axis in self.dense_axes else size
                for axis, size in enumerate(sizes)
            )
        for axis, (size, extent) in enumerate(zip(sizes, self.extent)):
            if size > extent:
                raise ValueError(
                    f'local_size must be at most the extent, {extent} along axis '
                    f'{axis}, got {local_size}: make it smaller or dilated_kernel_size '
                    'larger'
                )
            if size % 2 == 0 and extent % 2:
                raise ValueError(
                    f'local_size must be odd to have the centre of the extent, {extent}'
                    f' along axis {axis}, got {local_size}'
                )
        return sizes


def _scale_and_offset(norm: Any) -> tuple[Tensor, Tensor]:
    """Return by what a batch norm in evaluation multiplies, and what it adds."""
    dtype = torch.promote_types(norm.running_var.dtype, torch.float32)
    scale = norm.weight * (norm.running_var.to(dtype) + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale
