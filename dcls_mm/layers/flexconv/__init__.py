"""FlexConv: kernels that a small network gives, under a mask of learned size."""

from .kernel_nets import KERNEL_NETS, MLP, SIREN, GaborFilter, KernelNet, MAGNet
from .layer import FlexConv1d, FlexConv2d, FlexConvNd

__all__ = [
    'KERNEL_NETS',
    'MLP',
    'SIREN',
    'FlexConv1d',
    'FlexConv2d',
    'FlexConvNd',
    'GaborFilter',
    'KernelNet',
    'MAGNet',
]
