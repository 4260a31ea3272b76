"""The layers of the published `dcls` package, with its names and arguments."""

from torch import Tensor

from ...functional import construct_kernel
from ...functional._arguments import IntOrTuple, as_bool, as_int, as_tuple
from ..dcls import DCLSConv1d, DCLSConv2d, DCLSConv3d
from ..published import DCLS2_1D_EXTRA_WIDTH
from .published_kernel import (
    ConstructKernel1d,
    ConstructKernel2_1d,
    ConstructKernel2d,
    ConstructKernel3_1d,
    ConstructKernel3d,
)
from .published_layer import PublishedLayer
from .signatures import extends


class _DclsNd(PublishedLayer):
    """The base class of the published layers that learn along all axes."""


class Dcls1d(_DclsNd, DCLSConv1d):
    """:class:`PublishedLayer` over (batch, channels, length)."""

    kernel_module = ConstructKernel1d


class Dcls2d(_DclsNd, DCLSConv2d):
    """:class:`PublishedLayer` over (batch, channels, height, width).

    ``use_implicit_gemm=False`` forces torch's own convolution (backend 'native'); the
    default leaves the choice to :func:`dcls_mm.functional.convolve`.
    """

    kernel_module = ConstructKernel2d

    @extends(PublishedLayer.__init__)
    def __init__(self, *, use_implicit_gemm: bool = True, **arguments):
        super().__init__(**arguments)
        self.use_implicit_gemm = use_implicit_gemm

    @property
    def use_implicit_gemm(self) -> bool:
        """Whether a convolution other than torch's own may be used."""
        return self.backend != 'native'

    @use_implicit_gemm.setter
    def use_implicit_gemm(self, allowed: bool) -> None:
        self.backend = None if as_bool('use_implicit_gemm', allowed) else 'native'

    @property
    def cond(self) -> bool:
        """Whether the published package's implicit GEMM supports the layer's shape."""
        half = tuple(size // 2 for size in self.extent)
        depthwise = self.in_channels == self.out_channels == self.groups
        return depthwise and self.padding == half


class Dcls3d(_DclsNd, DCLSConv3d):
    """:class:`PublishedLayer` over (batch, channels, depth, height, width)."""

    kernel_module = ConstructKernel3d


class _DclsN_Md(PublishedLayer):
    """Positions along the last axis, ``dense_kernel_size`` taps along the others.

    weight is (out, in // groups, *dense_kernel_size, kernel_count), P is (1, *weight's
    shape) and starts uniform. Unlike the published layers, this one accepts 'v0' too.
    """

    __constants__ = [
        *PublishedLayer.__constants__[:2],
        'dense_kernel_size',
        *PublishedLayer.__constants__[2:],
    ]

    @extends(PublishedLayer.__init__, before='dilated_kernel_size')
    def __init__(
        self,
        *,
        dense_kernel_size: IntOrTuple = 1,
        dilated_kernel_size: IntOrTuple = 1,
        **arguments,
    ):
        last = self.ndim - 1
        dense = as_tuple('dense_kernel_size', dense_kernel_size, last, minimum=1)
        learned = as_tuple('dilated_kernel_size', dilated_kernel_size, 1, minimum=1)
        super().__init__(
            **arguments,
            dilated_kernel_size=dense + learned,
            position_axes=(last,),
            initial_positions='uniform',
        )
        self.dense_kernel_size = dense

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, dense_kernel_size={self.dense_kernel_size}'


class Dcls2_1d(_DclsN_Md, DCLSConv2d):
    """:class:`_DclsN_Md` over (batch, channels, height, width).

    The published layer, which not every release has, adds 1.0 to the |SIG| of 'gauss';
    this one adds 0.27, as all other layers do.
    """

    kernel_module = ConstructKernel2_1d

    def _computes_as_published(self) -> bool:
        return self.interpolation not in DCLS2_1D_EXTRA_WIDTH


class Dcls3_1d(_DclsN_Md, DCLSConv3d):
    """:class:`_DclsN_Md` over (batch, channels, depth, height, width)."""

    kernel_module = ConstructKernel3_1d


class Dcls2dK1d(_DclsNd, DCLSConv2d):
    """A flat kernel with positions along its one axis, over (batch, channels, h, w).

    weight is (out, in // groups, kernel_count), P is (1, *weight's shape).

    Args:
        flat_dim: 0 for a kernel of (dilated_kernel_size, 1), 1 for one of
            (1, dilated_kernel_size). This is what the published code computes; its
            README says the opposite.
    """

    kernel_module = ConstructKernel1d

    @extends(PublishedLayer.__init__)
    def __init__(
        self,
        *,
        dilated_kernel_size: IntOrTuple = 1,
        version: str = 'v1',
        flat_dim: int = 0,
        **arguments,
    ):
        if as_int('flat_dim', flat_dim, minimum=0) > 1:
            raise ValueError(f'flat_dim must be 0 or 1, got {flat_dim!r}')
        (size,) = as_tuple('dilated_kernel_size', dilated_kernel_size, 1, minimum=1)
        super().__init__(
            **arguments,
            dilated_kernel_size=(1, size) if flat_dim else (size, 1),
            version=version,
            position_axes=(int(flat_dim),),
        )
        self.flat_dim = flat_dim

    @property
    def element_shape(self) -> tuple[int, ...]:
        """The shape of weight: (*kernel_channels, count), without the flat axis."""
        return (*self.kernel_channels, self.kernel_count)

    def kernel(self) -> Tensor:
        """Construct the kernel, (out, in // groups, *extent)."""
        kernel = construct_kernel(
            *self.elements(),
            kernel_size=self.dilated_kernel_size,
            interpolation=self.interpolation,
        )
        return kernel.unsqueeze(-1 - self.flat_dim)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, flat_dim={self.flat_dim}'
