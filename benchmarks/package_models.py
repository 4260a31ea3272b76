"""ConvNeXts of timm, torchvision and transformers, and what they compute.

Every package is imported by the functions that need it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

# The sizes for a test, and for the tables.
SMALL = dict(depths=(1, 2, 1, 1), dims=(8, 12, 16, 24))
TINY = dict(depths=(3, 3, 9, 3), dims=(96, 192, 384, 768))


class Outputs(NamedTuple):
    """What a model computes: the stages' images and, if it has a head, the logits."""

    stages: list[Tensor]
    logits: Tensor | None


class Source(NamedTuple):
    """A model of a package.

    Attributes:
        package: its name, or what stands for it.
        build: whether it shall be small -> the model.
        forward: model, images -> :class:`Outputs`.
        normed: whether the stages' outputs are those of norms that the file has.
    """

    package: str
    build: Callable[[bool], nn.Module]
    forward: Callable[[nn.Module, Tensor], Outputs]
    normed: bool = False


def timm_model(name: str, **options) -> Source:
    def build(small: bool) -> nn.Module:
        import timm

        sizes = {}
        if small:
            sizes = {key: list(value) for key, value in SMALL.items()}
            sizes |= {'head_hidden_size': 10} if name.endswith('_mlp') else {}
        return timm.create_model(name, **options, **sizes)

    def forward(model: nn.Module, x: Tensor) -> Outputs:
        if options.get('features_only'):
            return Outputs(model(x), None)
        stages = model.forward_intermediates(x, intermediates_only=True)
        # A head of two layers, or with the norm before pooling, is not the original's.
        others = ('head.pre_logits.fc.weight', 'norm_pre.weight')
        plain = not model.state_dict().keys() & set(others)
        return Outputs(stages, model(x) if plain and model.num_classes else None)

    return Source('timm', build, forward)


def torchvision_model() -> Source:
    def build(small: bool) -> nn.Module:
        from torchvision.models.convnext import CNBlockConfig, ConvNeXt

        sizes = SMALL if small else TINY
        dims = [*sizes['dims'], None]
        return ConvNeXt(
            [
                CNBlockConfig(dim, after, depth)
                for dim, after, depth in zip(dims, dims[1:], sizes['depths'])
            ]
        )

    def forward(model: nn.Module, x: Tensor) -> Outputs:
        stages, y = [], x
        for i, part in enumerate(model.features):
            y = part(y)
            if i % 2:
                stages.append(y)
        return Outputs(stages, model(x))

    return Source('torchvision', build, forward)


def transformers_model(kind: str, name: str) -> Source:
    backbone = name.endswith('Backbone')
    dinov3 = kind.startswith('DINO')

    def build(small: bool) -> nn.Module:
        import transformers

        sizes = SMALL if small else TINY
        options = dict(depths=list(sizes['depths']), hidden_sizes=list(sizes['dims']))
        # Its last norm has another epsilon by default, which the files do not say.
        options['layer_norm_eps'] = 1e-6
        if backbone:
            options['out_features'] = [f'stage{i}' for i in (1, 2, 3, 4)]
        config = getattr(transformers, f'{kind}Config')(**options)
        return getattr(transformers, name)(config)

    def forward(model: nn.Module, x: Tensor) -> Outputs:
        if backbone:
            return Outputs(list(model(x).feature_maps), None)
        found = model(x, output_hidden_states=True)
        logits = found.logits if hasattr(found, 'logits') else None
        hidden = [h for h in found.hidden_states if h.ndim == 4]
        return Outputs(list(hidden[1:]), logits)

    return Source('transformers', build, forward, normed=backbone and not dinov3)


def _class(kind: str, name: str) -> tuple[str, Source]:
    return name, transformers_model(kind, name)


SOURCES = {
    'convnext_tiny': timm_model('convnext_tiny'),
    'convnext_tiny, as dinov3_lvd1689m': timm_model('convnext_tiny', num_classes=0),
    'convnext_tiny, features_only': timm_model('convnext_tiny', features_only=True),
    'convnext_base, as clip (640 classes)': timm_model(
        'convnext_base', num_classes=640
    ),
    'convnext_large_mlp, as clip': timm_model('convnext_large_mlp', num_classes=768),
    'convnext_nano (1x1 convolutions)': timm_model('convnext_nano'),
    'convnext_tiny_hnf': timm_model('convnext_tiny_hnf'),
    'convnextv2_tiny': timm_model('convnextv2_tiny'),
    'convnextv2_base, as fcmae (no head)': timm_model('convnextv2_base', num_classes=0),
    'torchvision convnext_tiny': torchvision_model(),
    **dict(
        _class(kind, f'{kind}{name}')
        for kind in ('ConvNext', 'ConvNextV2')
        for name in ('Model', 'ForImageClassification', 'Backbone')
    ),
    **dict(
        _class('DINOv3ConvNext', f'DINOv3ConvNext{name}')
        for name in ('Model', 'Backbone')
    ),
}


@torch.no_grad()
def randomize(model: nn.Module) -> nn.Module:
    """Give all parameters values that count, of which none explode."""
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        if parameter.ndim > 1 and parameter[0].numel() > 1 and 'grn' not in name:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        elif name.endswith('weight') and 'grn' not in name:
            parameter.copy_(1 + 0.1 * noise)
        else:
            parameter.copy_(0.2 * noise)
    return model.eval()
