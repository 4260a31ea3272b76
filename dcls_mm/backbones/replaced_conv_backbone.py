"""Any backbone of the registry, with convolutions of it replaced by DCLS layers."""

import inspect
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..functional._arguments import IntOrTuple
from ..layers import DCLSConvNd
from ..layers.folding import switch_to_deploy
from .conv_replacement import Replaced, replace_convs


class ReplacedConvBackbone(BaseModule):
    """A backbone of mmdet, mmseg or another library, with convolutions replaced.

    Example: ``dict(type='ReplacedConvBackbone', backbone=dict(type='MobileNetV2'),
    layer=dict(type='DCLSConv2d', dilated_kernel_size=17), depthwise=True)``.
    What was replaced is logged, and stays in the attribute ``replaced``.

    The backbone's weights are found under the prefix ``backbone.``, so in a detector's
    checkpoint under ``backbone.backbone.``.

    Args:
        backbone: config of the backbone, with the ``init_cfg`` that loads its weights.
        layer: config of the layers: the ``type`` of a registered layer of dcls_mm and
            the arguments that the replaced convolution does not give.
        name, kernel_size, depthwise: which convolutions, see :func:`.replace_convs`.
        start: 'conv', the backbone computes at first what its weights compute by plain
            convolutions; 'fresh', the replaced ones have the layer's initial values.
        share_positions: which layers share positions, see :func:`.replace_convs`.
        pretrained: handed on to the backbone; mmseg's segmentors set it from theirs.
        init_cfg: must be None: it is for ``backbone``, by its own names.

    Raises:
        ValueError, TypeError: an argument that doesn't fit, by its name.
    """

    def __init__(
        self,
        backbone: dict,
        layer: dict,
        name: str | None = None,
        kernel_size: IntOrTuple | None = None,
        depthwise: bool | None = None,
        start: str = 'conv',
        share_positions: str | None = None,
        pretrained: str | None = None,
        init_cfg: None = None,
    ):
        super().__init__()
        for key, cfg in (('backbone', backbone), ('layer', layer)):
            if not isinstance(cfg, dict):
                raise TypeError(
                    f'{key} must be a config, a dict with a registered {key} as '
                    f"'type', got {cfg!r}"
                )
        if init_cfg is not None:
            raise ValueError(
                'init_cfg must stand in the config of the replaced backbone, '
                f'backbone=dict(..., init_cfg=...), got {init_cfg!r} beside it'
            )
        if pretrained is not None:
            if backbone.get('pretrained') or backbone.get('init_cfg'):
                raise ValueError(
                    f'pretrained={pretrained!r} is given beside a backbone that has '
                    'its own init_cfg or pretrained: leave one out (pretrained=None '
                    'in the model)'
                )
            backbone = dict(backbone, pretrained=pretrained)
        self._backbone_cfg = backbone
        options = {key: value for key, value in layer.items() if key != 'type'}
        if own := sorted({*DCLSConvNd.CONV_ARGUMENTS, 'bias'} & set(options)):
            raise ValueError(
                f'layer must leave out {own}: the replaced convolution gives them'
            )
        self._choice = dict(
            layer=_layer_class(layer.get('type')),
            name=name,
            kernel_size=kernel_size,
            depthwise=depthwise,
            start=start,
            share_positions=share_positions,
            **options,
        )
        self.backbone = self._build_plain()
        self.replaced = self._replace(self.backbone)
        lines = [f'{len(self.replaced)} convolutions replaced:', *self.replaced]
        print_log('\n  '.join(map(str, lines)), logger='current')

    def forward(self, x: Tensor) -> Any:
        """What the backbone gives, contiguous."""
        return _contiguous(self.backbone(x))

    def init_weights(self) -> None:
        """Initialize the backbone as it would be with plain convolutions, then replace.

        So its ``init_cfg`` finds the convolutions that it was written for. A second
        call does nothing, as mmengine's, but for a warning.
        """
        if self.is_init:
            super().init_weights()
            return
        plain = self._build_plain()
        plain.init_weights()
        self._replace(plain)
        # An optimizer or a wrapper may know the parameters: only values are moved.
        self.backbone.load_state_dict(plain.state_dict())
        self._is_init = True

    def switch_to_deploy(self) -> None:
        """Make every DCLS layer the plain convolution that it computes.

        See :func:`dcls_mm.layers.switch_to_deploy`.

        Raises:
            ValueError: there is no such layer, or one can't be folded.
        """
        switch_to_deploy(self)

    def _build_plain(self) -> Any:
        backbone = MODELS.build(self._backbone_cfg)
        backbone.train()  # where some freeze their stages; many return nothing
        return backbone

    def _replace(self, backbone: nn.Module) -> list[Replaced]:
        return replace_convs(backbone, **self._choice)


def _layer_class(layer_type: str | type | None) -> type:
    """The class that a config's ``layer.type`` names."""
    found = layer_type
    if not inspect.isclass(found):
        found = MODELS.get(str(found))
    if found is None:
        raise ValueError(
            "layer must name a registered layer as 'type', such as 'DCLSConv2d', "
            f'got {layer_type!r}'
        )
    return found


def _contiguous(outputs: Any) -> Any:
    # mmcv's RoIAlign takes any memory for contiguous, without an error.
    if isinstance(outputs, Tensor):
        return outputs.contiguous()
    if type(outputs) in (tuple, list):
        return type(outputs)(map(_contiguous, outputs))
    return outputs
