"""Any registered backbone with convolutions replaced by DCLS layers."""

import copy
from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..functional._arguments import IntOrTuple
from ..layers.folding import switch_to_deploy
from .conv_replacement import Replaced, replace_convs
from .replacement_config import check_config, log_replaced, replacement


class ReplacedConvBackbone(BaseModule):
    """A backbone of mmdet, mmseg or another library, with convolutions replaced.

    Example: ``dict(type='ReplacedConvBackbone', backbone=dict(type='MobileNetV2'),
    layer=dict(type='DCLSConv2d', dilated_kernel_size=17), depthwise=True)``. What was
    replaced is logged and kept in the attribute ``replaced``.

    The backbone's weights have the prefix ``backbone.``, so in a detector's checkpoint
    it is ``backbone.backbone.``.

    Args:
        backbone: config of the backbone, with the ``init_cfg`` that loads its weights.
        layer: config of the layers: the ``type`` of a registered dcls_mm layer and the
            arguments that the replaced convolution does not determine.
        name, kernel_size, depthwise: which convolutions to replace, see
            :func:`.replace_convs`.
        start: with 'conv', the backbone first computes what its weights compute with
            plain convolutions; with 'fresh', the new layers have their own initial
            values.
        share_positions: which layers share positions, see :func:`.replace_convs`.
        pretrained: passed on to the backbone; mmseg's segmentors set it from theirs.
        init_cfg: must be None; it belongs in ``backbone``, with that model's own key
            names.

    Raises:
        ValueError, TypeError: an argument is invalid; the message names it.
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
        check_config('backbone', backbone)
        if init_cfg is not None:
            raise ValueError(
                'init_cfg must be in the config of the replaced backbone, '
                f'backbone=dict(..., init_cfg=...), got {init_cfg!r} outside it'
            )
        if pretrained is not None:
            if backbone.get('pretrained') or backbone.get('init_cfg'):
                raise ValueError(
                    f'pretrained={pretrained!r} is given although the backbone has '
                    'its own init_cfg or pretrained: leave one out (pretrained=None '
                    'in the model)'
                )
            backbone = dict(backbone, pretrained=pretrained)
        self._backbone_cfg = backbone
        self._choice = replacement(
            layer,
            name=name,
            kernel_size=kernel_size,
            depthwise=depthwise,
            start=start,
            share_positions=share_positions,
        )
        self.backbone = self._build_plain()
        self.replaced = self._replace(self.backbone)
        log_replaced(self.replaced)

    def forward(self, x: Tensor) -> Any:
        """Return the backbone's outputs in contiguous memory."""
        return _contiguous(self.backbone(x))

    def init_weights(self) -> None:
        """Initialize the backbone with plain convolutions, then replace them.

        This way its ``init_cfg`` finds the convolutions that it was written for. As in
        mmengine, a second call only warns.
        """
        if self.is_init:
            super().init_weights()
            return
        plain = self._build_plain()
        plain.init_weights()
        self._replace(plain)
        # An optimizer or a wrapper may hold the parameters, so only copy the values.
        self.backbone.load_state_dict(plain.state_dict())
        self._is_init = True

    def switch_to_deploy(
        self, round_positions: bool = False, form: str = 'dense'
    ) -> None:
        """Replace every DCLS layer with the convolution that it computes.

        Args:
            round_positions, form: see :func:`dcls_mm.layers.switch_to_deploy`.

        Raises:
            ValueError: there is no such layer, or one can't be folded to that form.
        """
        switch_to_deploy(self, round_positions, form)

    def _build_plain(self) -> Any:
        # A copy, as some models write into their config.
        backbone = MODELS.build(copy.deepcopy(self._backbone_cfg))
        backbone.train()  # some freeze their stages here; many return nothing
        return backbone

    def _replace(self, backbone: nn.Module) -> list[Replaced]:
        return replace_convs(backbone, **self._choice)


def _contiguous(outputs: Any) -> Any:
    # mmcv's RoIAlign silently assumes contiguous memory.
    if isinstance(outputs, Tensor):
        return outputs.contiguous()
    if type(outputs) in (tuple, list):
        return type(outputs)(map(_contiguous, outputs))
    return outputs
