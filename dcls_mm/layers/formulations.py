"""How a DCLS layer convolves: the values of its argument ``formulation``.

- 'construct' builds the dense kernel, zeros included, and convolves with it on the
  backend that suits the call. It serves every layer, device and dtype.
- 'direct' convolves with the taps that the elements have, so the cost grows with their
  number and not with the extent. It runs on a CPU, in the compiled part, for depthwise
  layers along one or two axes with stride 1 whose elements spread over neighbouring
  taps alone ('bilinear', 'triangle'); in evaluation for every depthwise kernel.
- 'sample' samples the input at the positions and builds no kernel either ('bilinear'
  only). It serves every number of groups and axes, with memory that does not grow with
  the extent.
- 'auto' takes 'direct' where that should be faster, else 'construct'.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..functional import INTERPOLATIONS, sampled_convolution
from ..functional._arguments import check_choice
from ..functional.convolution import check_input
from ..functional.interpolation import interpolation_name
from ..functional.native_code.direct import Elements
from ..functional.sparse_kernel import SparseKernel
from .local_branch import LocalBranch

FORMULATIONS = ('auto', 'construct', 'direct', 'sample')

# Interpolations that give an element at most two taps along each axis.
NARROW = ('bilinear', 'triangle')


class Formulations(LocalBranch):
    """The part of :class:`.dcls.DCLSConvNd` that convolves."""

    # Whether kernel() is DCLSConvNd's own, not a subclass's.
    _kernel_is_ours = False

    # Whether several channels have one bias.
    ties_bias = False

    formulation: str
    learned_axes: Any
    elements: Any
    _element_kernel: Any
    position_limits: Any

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``, (batch, in, *size), to (batch, out, *out_size)."""
        check_input(x, self.ndim, self.in_channels)
        bias: Tensor | None = self.bias
        if self.branch_norms is not None or self.ties_bias:
            if self.norms_train():
                return self._sum_of_branches(x)
            bias = self.kernel_bias()
        if self.formulation == 'sample':
            elements = self.with_local_elements(*self.elements_on_all_axes())
            return self._sample(x, *elements, bias)
        backend = 'direct' if self.formulation == 'direct' else self.backend
        return self._convolve(x, self._kernel_for_call(), bias, backend)

    def _sample(
        self, x: Tensor, weight: Tensor, positions: Tensor, bias: Tensor | None
    ) -> Tensor:
        return sampled_convolution(
            x,
            weight,
            positions,
            bias,
            kernel_size=self.kernel_extent,
            stride=self.stride,
            padding=self.kernel_padding,
            groups=self.groups,
            padding_mode=self.padding_mode,
        )

    def _kernel_for_call(self) -> Tensor | SparseKernel:
        if self.formulation == 'construct':
            return self._current_kernel()
        return super()._kernel_for_call()

    def _kernel_to_learn(self) -> Tensor | SparseKernel:
        if self._kernel_is_redefined() or self._reason_against_direct() is not None:
            return self.kernel()
        elements = self.elements_on_all_axes()
        if self.local_weight is not None:
            elements = self.with_local_elements(*elements)
        extent = self.extent if self._spacing is None else self.kernel_extent
        return self._sparse(*elements, extent, self.kernel)

    def _sparse(
        self,
        weight: Tensor,
        positions: Tensor,
        extent: tuple[int, ...],
        dense: Callable[[], Tensor],
    ) -> SparseKernel:
        rule = INTERPOLATIONS[interpolation_name(self.interpolation)]
        return SparseKernel(
            (len(weight), 1, *extent),
            weight,
            dense=dense,
            content=Elements(weight.squeeze(1), positions.squeeze(2), rule.normalized),
        )

    def _sum_of_branches(self, x: Tensor) -> Tensor:
        """Convolve with the elements and with the local kernel, and add both normed."""
        if self._kernel_is_redefined():
            raise ValueError(
                'branch_norms must be False for a layer with a kernel() of its own, '
                f'such as this {type(self).__name__}: in training the branches are '
                'convolved one by one'
            )
        assert self.local_weight is not None
        unbatched = x.ndim == self.ndim + 1
        x = x.unsqueeze(0) if unbatched else x
        if self.formulation == 'sample':
            far = self._sample(x, *self.elements_on_all_axes(), None)
            near = self._convolve(x, self.local_kernel(), None, None)
        else:
            backend = 'direct' if self.formulation == 'direct' else self.backend
            far, near = (
                self._convolve(x, kernel, None, backend) for kernel in self._branches()
            )
        y = self.add_normed(far, near)
        return y.squeeze(0) if unbatched else y

    def _branches(self) -> tuple[Tensor | SparseKernel, Tensor | SparseKernel]:
        """Return the kernels of the elements and of the local branch."""
        assert self.local_weight is not None and self.local_size is not None
        if self.formulation == 'construct' or self._reason_against_direct() is not None:
            return self._element_kernel(), self.local_kernel()
        weight, positions = self.elements_on_all_axes()
        far = self._sparse(weight, positions, self.kernel_extent, self._element_kernel)
        size = self.local_size if self._spacing is None else self.kernel_extent
        taps = self.local_elements(positions)
        return far, self._sparse(*taps, size, self.local_kernel)

    def _kernel_is_redefined(self) -> bool:
        return not self._kernel_is_ours or 'kernel' in self.__dict__

    def __init_subclass__(cls, **options) -> None:
        super().__init_subclass__(**options)
        home = cls.kernel.__module__
        cls._kernel_is_ours = home == f'{__package__}.dcls'

    def _reason_against_direct(self) -> str | None:
        """Return what the formulation 'direct' needs and this layer lacks, or None."""
        if self.interpolation not in NARROW:
            return f"interpolation 'bilinear' or 'triangle', got {self.interpolation!r}"
        if self.kernel_channels[1] != 1:
            return f'groups={self.in_channels}, one per channel, got {self.groups}'
        if self.ndim > 2:
            return f'one or two spatial axes, got {self.ndim}'
        if max(self.stride) > 1:
            return f'stride 1, got {self.stride}'
        return None

    def elements_on_all_axes(self) -> tuple[Tensor, Tensor]:
        """Return the elements with a position along dense axes too.

        Returns:
            Weight (out, in // groups, n), and positions (ndim, out, in // groups, n) in
            pixels, where ``out`` is 1 if the outputs share them.
        """
        weight, positions, _ = self.elements()
        if self.dense_axes:
            rows = dict(zip(self.learned_axes, positions))
            for i, axis in enumerate(self.dense_axes):
                first, last = self.position_limits(axis)
                taps = torch.arange(
                    first, last + 1, dtype=positions.dtype, device=positions.device
                )
                shape = [1] * (positions.ndim - 1)
                shape[2 + i] = len(taps)
                rows[axis] = taps.view(shape).expand_as(positions[0])
            positions = torch.stack([rows[axis] for axis in range(self.ndim)])
        return weight.flatten(2), positions.flatten(3)

    def _check_formulation(self) -> None:
        """Raise a ValueError unless the layer's arguments allow its formulation."""
        formulation, backend = self.formulation, self.backend
        check_choice('formulation', formulation, FORMULATIONS)
        if formulation == 'sample' and self.interpolation != 'bilinear':
            raise ValueError(
                "formulation 'sample' needs interpolation 'bilinear', "
                f'got {self.interpolation!r}'
            )
        if formulation == 'sample' and backend is not None:
            raise ValueError(
                "formulation 'sample' takes no backend, as it builds no kernel, got "
                f'{backend!r}'
            )
        needs = self._reason_against_direct() if formulation == 'direct' else None
        if needs is not None:
            raise ValueError(f"formulation 'direct' needs {needs}")
        if backend is not None and (formulation, backend == 'direct') in (
            ('construct', True),
            ('direct', False),
        ):
            raise ValueError(
                f'formulation {formulation!r} excludes the backend {backend!r}: leave '
                'out one of them'
            )
