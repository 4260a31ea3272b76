"""ConvNeXt with any registered depthwise convolution, DCLS by default."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..functional._arguments import (
    as_bool,
    as_float,
    as_int,
    as_tuple,
    check_floating,
)
from ..layers import ConstructedConvNd, DCLSConvNd
from ..layers.folding import switch_to_deploy
from .architectures import ARCHITECTURES
from .convnext_blocks import ConvNeXtBlock, LayerNorm2d, downsampling, stem
from .pretrained import is_pretrained, load_pretrained

# The published setting. With this count there are about as many parameters, learned
# positions included, as in ConvNeXt-T with 7x7 kernels.
DCLS_17X17 = dict(
    type='DCLSConv2d',
    kernel_count=34,
    dilated_kernel_size=17,
    interpolation='bilinear',
)


class ConvNeXtDCLS(BaseModule):
    """ConvNeXt with DCLS, or any other, depthwise convolutions.

    Its state_dict has the keys of the published ConvNeXt-dcls code. Its outputs are
    contiguous. Inside it works in channels_last memory format on a CPU. On a GPU the
    images between the blocks of a stage are contiguous, as torch's depthwise kernel and
    the backend 'triton' read them; they are channels_last if the input is, or after
    ``backbone.to(memory_format=torch.channels_last)``.

    Args:
        arch: a name in ``ARCHITECTURES`` ('atto' to 'xxlarge'), or a dict of ``depths``
            (blocks per stage) and ``dims`` (channels per stage).
        in_channels: channels of the input image.
        depthwise_cfg: config of the depthwise convs: the ``type`` of a registered conv
            and its arguments except channels, groups, stride and padding, which the
            backbone sets to keep the size. Examples: ``dict(type='DCLSConv2d',
            kernel_count=34, dilated_kernel_size=17)``, ``dict(type='Conv2d',
            kernel_size=7)``, ``dict(type='Conv2d', kernel_size=7, dilation=2)``. A list
            has one for each stage of ``arch``.
        sync_positions: share positions (and sigma) among the blocks of a stage, as the
            published models do; convs without positions are not affected.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        layer_scale_init_value: initial scale of the residuals; 0 means no scale, as
            in ConvNeXt-V2.
        out_indices: stages whose outputs are returned, each after a layer norm: one
            index, or several in ascending order; -1 for the last. Later stages are not
            built.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and n stages.
        with_cp: recompute each block in the backward pass to save memory.
        grn: normalize the global response in each block, as in ConvNeXt-V2.
        norm_eps: what the layer norms add to the variance; timm's ConvNeXt-XXL, arch
            'xxlarge', was trained with 1e-5.
        init_cfg: an mmengine init config. ``dict(type='Pretrained', checkpoint=...,
            prefix=...)`` loads the published ``{'model': ...}`` files and, with
            ``prefix='backbone.'``, checkpoints of detectors and segmentors. Keys that
            don't match are an error, see :func:`.pretrained.load_pretrained`.

    Raises:
        ValueError, TypeError: an argument is invalid; the message names it.

    Example:
        >>> import torch
        >>> from dcls_mm import ConvNeXtDCLS
        >>> backbone = ConvNeXtDCLS('atto', out_indices=(2, 3))
        >>> [tuple(y.shape) for y in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 160, 4, 4), (1, 320, 2, 2)]

    Source: arXiv 2201.03545 (ConvNeXt), arXiv 2301.00808 (ConvNeXt-V2), arXiv
    2112.03740, section on ConvNeXt-dcls.
    """

    init_cfg: dict | list | None
    is_init: bool
    # Lists of torch.nn.Sequential, which the type torch.nn.ModuleList can't express.
    downsample_layers: Any
    stages: Any

    def __init__(
        self,
        arch: str | dict = 'tiny',
        in_channels: int = 3,
        depthwise_cfg: dict | Sequence[dict] | None = None,
        sync_positions: bool = True,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        grn: bool = False,
        norm_eps: float = 1e-6,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg)
        depths, dims = _depths_and_dims(arch)
        in_channels = as_int('in_channels', in_channels, minimum=1)
        if as_float('drop_path_rate', drop_path_rate, minimum=0.0) >= 1:
            raise ValueError(f'drop_path_rate must be in [0, 1), got {drop_path_rate}')
        as_float('layer_scale_init_value', layer_scale_init_value, minimum=0.0)
        norm_eps = as_float('norm_eps', norm_eps, minimum=0.0)
        as_bool('with_cp', with_cp)
        self.num_stages = len(depths)
        self.out_indices = _stage_indices(out_indices, self.num_stages)
        self.frozen_stages = as_int('frozen_stages', frozen_stages, minimum=-1)
        if self.frozen_stages > len(depths):
            raise ValueError(
                f'frozen_stages must be at most {len(depths)}, the number of stages, '
                f'got {frozen_stages}'
            )

        built = self.out_indices[-1] + 1
        self.downsample_layers = nn.ModuleList([stem(in_channels, dims[0], norm_eps)])
        for before, after in zip(dims, dims[1:built]):
            self.downsample_layers.append(downsampling(before, after, norm_eps))
        last_block = max(1, sum(depths) - 1)
        rates = (drop_path_rate * i / last_block for i in range(sum(depths)))
        self.stages = nn.ModuleList()
        depthwise = _one_per_stage(depthwise_cfg, self.num_stages)
        for depth, channels, cfg in zip(depths[:built], dims, depthwise):
            blocks = [
                ConvNeXtBlock(
                    channels,
                    cfg,
                    next(rates),
                    layer_scale_init_value,
                    with_cp,
                    as_bool('grn', grn),
                    norm_eps,
                )
                for _ in range(depth)
            ]
            self.stages.append(nn.Sequential(*blocks))
        for stage in self.out_indices:
            self.add_module(f'norm{stage}', LayerNorm2d(dims[stage], eps=norm_eps))

        self._reset_parameters()
        if as_bool('sync_positions', sync_positions):
            self._share_positions()
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (batch, in_channels, H, W) to (batch, dim, H / 2^(2+i), ...) per output.

        Raises:
            TypeError: the input is not a floating-point tensor.
            ValueError: the input has the wrong rank or number of channels, or is
                smaller than one pixel of the last stage.
        """
        check_floating('the input', x)
        in_channels = self.downsample_layers[0][0].in_channels
        if x.ndim != 4 or x.shape[1] != in_channels:
            raise ValueError(
                f'the input must have the shape (batch, {in_channels}, height, width), '
                f'got {tuple(x.shape)}'
            )
        if min(x.shape[2:]) < self.least_size:
            raise ValueError(
                f'the input must have at least {self.least_size} x {self.least_size} '
                f'pixels, which make one in the last stage, got {tuple(x.shape)}'
            )
        stage_format = self._stage_format(x)
        x = x.contiguous(memory_format=torch.channels_last)
        outputs = []
        for i, (downsample, stage) in enumerate(
            zip(self.downsample_layers, self.stages)
        ):
            x = stage(downsample(x).contiguous(memory_format=stage_format))
            # Copied once, if at all, for two norms: the output's and the next stage's.
            x = x.contiguous(memory_format=torch.channels_last)
            if i in self.out_indices:
                # mmcv's RoIAlign silently assumes contiguous memory.
                outputs.append(getattr(self, f'norm{i}')(x).contiguous())
        return tuple(outputs)

    def _stage_format(self, x: Tensor) -> torch.memory_format:
        """Return the memory format of the images between the blocks of a stage.

        A block reads and writes 79 times its image in a training step. A convolution
        that reads contiguous images adds 6, and 2 in inference, if the images are
        contiguous; it would add 8, and 4, if it copied channels_last ones in and out.
        On a CPU the convolution reads channels_last. (In float32; all but the 8 and 4
        are as ``tests/test_backbones/test_block_traffic.py`` counts.)
        """
        if x.device.type == 'cpu':
            return torch.channels_last
        for tensor in (x, self.downsample_layers[0][0].weight):
            # With one channel a tensor is both.
            last = tensor.is_contiguous(memory_format=torch.channels_last)
            if last and not tensor.is_contiguous():
                return torch.channels_last
        return torch.contiguous_format

    @property
    def least_size(self) -> int:
        """Image pixels along each axis that make one pixel of the last stage."""
        return 2 ** (1 + len(self.stages))

    def init_weights(self) -> None:
        """Apply ``init_cfg``; without one, keep the constructor's random weights.

        As in mmengine, a second call only warns.
        """
        cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        files: list[Any] = [cfg for cfg in cfgs if is_pretrained(cfg)]
        if self.is_init or not files:
            super().init_weights()
            return
        others = [cfg for cfg in cfgs if cfg not in files]
        if others:
            given, self.init_cfg = self.init_cfg, others
            super().init_weights()
            self.init_cfg, self.is_init = given, False
        for cfg in files:
            load_pretrained(self, **{k: v for k, v in cfg.items() if k != 'type'})
        self.is_init = True

    def train(self, mode: bool = True):
        """Set the mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def switch_to_deploy(
        self, round_positions: bool = False, form: str = 'dense'
    ) -> None:
        """Replace every DCLS layer with the convolution that it computes.

        In the dense form the state_dict is then that of a backbone whose
        ``depthwise_cfg`` is ``dict(type='Conv2d', kernel_size=<the extent>)``; each
        FlexConv layer gets the size of its own mask.

        Args:
            round_positions, form: see :func:`dcls_mm.layers.switch_to_deploy`.

        Raises:
            ValueError: there is no such layer, or one can't be folded to that form.
        """
        switch_to_deploy(self, round_positions, form)

    def layer_id(self, name: str, num_layers: int, decay_type: str) -> int:
        """Return the depth by which a parameter's learning rate decays, as published.

        Layer 0 is the stem. With 'stage_wise', stage i (from 0) is layer i + 1, and the
        downsampling layers are layer 0 too. With 'layer_wise', the first two stages are
        layers 1 and 2, the last stage of ``arch`` is layer ``num_layers``, and every
        three blocks in between are one layer, from 3 on; each downsampling layer
        belongs to what follows it. The norms of the outputs are not decayed; they are
        layer ``num_layers + 1``.

        Args:
            name: name of the parameter inside the backbone.
            num_layers: number of layers in the backbone besides the stem.
            decay_type: 'layer_wise' or 'stage_wise'.
        """
        part, *indices = name.split('.')
        if part not in ('downsample_layers', 'stages'):
            return num_layers + 1
        stage, block = int(indices[0]), int(indices[1])
        if part == 'downsample_layers' and (stage == 0 or decay_type == 'stage_wise'):
            return 0
        if decay_type == 'stage_wise':
            return stage + 1
        if stage == self.num_stages - 1:
            return num_layers
        if stage < 2:
            return stage + 1
        # With a fourth stage before the last one, its layers come after the third's.
        before = sum(math.ceil(len(s) / 3) for s in self.stages[2:stage])
        return 3 + before + (0 if part == 'downsample_layers' else block) // 3

    def _reset_parameters(self) -> None:
        """Reset all convs and linear layers to N(0, 0.02), as published; biases to 0.

        A continuous kernel has no weights; its network keeps its own initial values.
        """
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear, ConstructedConvNd)):
                for name in ('weight', 'local_weight'):
                    if getattr(module, name, None) is not None:
                        nn.init.trunc_normal_(getattr(module, name), std=0.02)
                if getattr(module, 'elements_from_zero', False):
                    nn.init.zeros_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _share_positions(self) -> None:
        for stage in self.stages:
            first = stage[0].dwconv
            for block in stage[1:]:
                if isinstance(block.dwconv, DCLSConvNd):
                    block.dwconv.share_positions(first)

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        frozen = max(1, self.frozen_stages)
        return [
            *self.downsample_layers[:frozen],
            *self.stages[: self.frozen_stages],
        ]

    def _freeze_stages(self) -> None:
        for module in self._frozen_modules():
            module.eval().requires_grad_(False)


def _depths_and_dims(arch: str | dict) -> tuple[tuple, tuple]:
    if isinstance(arch, str):
        if arch not in ARCHITECTURES:
            raise ValueError(
                f'arch must be one of {list(ARCHITECTURES)} or a dict of depths and '
                f'dims, got {arch!r}'
            )
        arch = ARCHITECTURES[arch]
    if not isinstance(arch, dict) or set(arch) != {'depths', 'dims'}:
        raise ValueError(f'arch must be a dict(depths=..., dims=...), got {arch!r}')
    for name in ('depths', 'dims'):
        if isinstance(arch[name], str) or not isinstance(arch[name], Iterable):
            raise TypeError(
                f'arch.{name} must be integers, one per stage, got {arch[name]!r}'
            )
    depths, dims = tuple(arch['depths']), tuple(arch['dims'])
    if not depths or len(depths) != len(dims):
        raise ValueError(
            'arch must have as many depths as dims, one per stage, got '
            f'{len(depths)} and {len(dims)}'
        )
    return (
        as_tuple('arch.depths', depths, len(depths), minimum=1),
        as_tuple('arch.dims', dims, len(dims), minimum=1),
    )


def _one_per_stage(cfg: Any, stages: int) -> Sequence[Any]:
    if cfg is None:
        cfg = DCLS_17X17
    if not isinstance(cfg, (list, tuple)):
        return [cfg] * stages
    if len(cfg) != stages:
        raise ValueError(
            f'depthwise_cfg must be one dict, or one for each of the {stages} stages, '
            f'got {len(cfg)}'
        )
    return cfg


def _stage_indices(out_indices: int | Sequence[int], stages: int) -> tuple[int, ...]:
    if isinstance(out_indices, Iterable) and not isinstance(out_indices, str):
        given = tuple(out_indices)
    else:
        given = (out_indices,)
    given = as_tuple('out_indices', given, len(given), minimum=-stages)
    indices = tuple(i + stages if i < 0 else i for i in given)
    if not indices or list(indices) != sorted(set(indices)) or indices[-1] >= stages:
        raise ValueError(
            'out_indices must be one or more ascending indices in '
            f'0..{stages - 1} (-1 is the last), got {out_indices!r}'
        )
    return indices
