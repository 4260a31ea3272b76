"""Upsampling blocks with learned positions for OpenMMLab's decoders."""

import torch
from mmcv.cnn import ConvModule
from torch import Tensor
from torch.utils.checkpoint import checkpoint as run_checkpointed

from ..functional._arguments import as_bool, as_int


class DCLSDeconvModule(ConvModule):
    """Transposed DCLS convolution, norm and activation, like mmseg's DeconvModule.

    It accepts what decoders such as UNet pass to the layer of their ``upsample_cfg``:
    ``upsample_cfg=dict(type='DCLSDeconvModule', dilated_kernel_size=8)``.

    Args:
        in_channels, out_channels: as in a convolution.
        with_cp: recompute the block in the backward pass to save memory.
        norm_cfg, act_cfg: configs of the norm and the activation; None for none.
        kernel_size: size of the transposed convolution that is replaced; equal to
            ``scale_factor`` or larger by an even number.
        scale_factor: factor by which height and width grow.
        options: keyword arguments of :class:`.DCLSConvTranspose2d`.

    Raises:
        ValueError, TypeError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        with_cp: bool = False,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        *,
        kernel_size: int = 4,
        scale_factor: int = 2,
        **options,
    ):
        kernel_size = as_int('kernel_size', kernel_size, minimum=1)
        scale_factor = as_int('scale_factor', scale_factor, minimum=1)
        as_bool('with_cp', with_cp)
        excess = kernel_size - scale_factor
        if excess < 0 or excess % 2:
            raise ValueError(
                'kernel_size must be scale_factor or larger by an even number, '
                f'got {kernel_size} and {scale_factor}'
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=scale_factor,
            padding=excess // 2,
            conv_cfg=dict(type='DCLSConvTranspose2d', **options),
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, H, W) to (batch, out, scale_factor H, scale_factor W)."""
        if self.with_cp and torch.is_grad_enabled():
            return run_checkpointed(super().forward, x, use_reentrant=False)
        return super().forward(x)
