"""Convolution modules that construct their kernel."""

from .base import ConstructedConvNd
from .dcls import DCLSConv1d, DCLSConv2d, DCLSConv3d, DCLSConvNd
from .flexconv.layer import FlexConv1d, FlexConv2d, FlexConvNd
from .folding import Folded, fold, switch_to_deploy
from .large_kernel import LargeKernelConv2d
from .rotated import RotatedDCLSConv2d
from .sparse import SparseConvNd
from .steered import SteeredDCLSConv2d
from .transposed import (
    DCLSConvTranspose1d,
    DCLSConvTranspose2d,
    DCLSConvTranspose3d,
    DCLSConvTransposeNd,
)

__all__ = [
    'ConstructedConvNd',
    'DCLSConv1d',
    'DCLSConv2d',
    'DCLSConv3d',
    'DCLSConvNd',
    'DCLSConvTranspose1d',
    'DCLSConvTranspose2d',
    'DCLSConvTranspose3d',
    'DCLSConvTransposeNd',
    'FlexConv1d',
    'FlexConv2d',
    'FlexConvNd',
    'Folded',
    'LargeKernelConv2d',
    'RotatedDCLSConv2d',
    'SparseConvNd',
    'SteeredDCLSConv2d',
    'fold',
    'switch_to_deploy',
]
