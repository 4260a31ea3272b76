"""ConvNeXt as other packages have it: their keys, their shapes and their forward pass.

Written from the packages' state_dicts, with plain functions of torch on images whose
channels come first, as a reference for what is loaded from their files.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

DEPTHS, DIMS, CLASSES = (1, 2, 1), (8, 12, 16), 5
TINY = (3, 3, 9, 3), (96, 192, 384, 768), 1000


class Package(NamedTuple):
    """The names that a package gives to the parts.

    Attributes:
        stem: of convolution and norm.
        down: stage -> of norm and convolution.
        block: stage, block -> of depthwise, norm, first linear, second linear layer,
            and the keys of scale, gamma and beta of the response norm.
        last: of the norm after pooling, and of the classifier.
        outputs: stage -> of the norm of an output; None if the package has none.
        v2: whether it has the blocks of ConvNeXt-V2; None if it has both.
        shapes: how it shapes a scale, a response norm and a linear layer.
    """

    stem: tuple[str, str]
    down: Callable[[int], tuple[str, str]]
    block: Callable[[int, int], tuple[str, ...]]
    last: tuple[str, str] | None
    outputs: Callable[[int], str] | None = None
    v2: bool | None = None
    shapes: dict = {}


def original_block(i: int, j: int) -> tuple[str, ...]:
    start = f'stages.{i}.{j}'
    names = ('dwconv', 'norm', 'pwconv1', 'pwconv2', 'gamma', 'grn.gamma', 'grn.beta')
    return tuple(f'{start}.{name}' for name in names)


def mmpretrain_block(start: str):
    names = ('depthwise_conv', 'norm', 'pointwise_conv1', 'pointwise_conv2', 'gamma')
    names = (*names, 'grn.gamma', 'grn.beta')
    return lambda i, j: tuple(f'{start}stages.{i}.{j}.{name}' for name in names)


def timm_block(stage: str):
    names = ('conv_dw', 'norm', 'mlp.fc1', 'mlp.fc2', 'gamma')
    names = (*names, 'mlp.grn.weight', 'mlp.grn.bias')
    return lambda i, j: tuple(f'{stage}{i}.blocks.{j}.{name}' for name in names)


def transformers_block(start: str):
    names = ('dwconv', 'layernorm', 'pwconv1', 'pwconv2', 'layer_scale_parameter')
    names = (*names, 'grn.weight', 'grn.bias')
    return lambda i, j: tuple(
        f'{start}encoder.stages.{i}.layers.{j}.{name}' for name in names
    )


def dinov3_block(start: str):
    names = ('depthwise_conv', 'layer_norm', 'pointwise_conv1', 'pointwise_conv2')
    names = (*names, 'gamma', '', '')
    return lambda i, j: tuple(f'{start}stages.{i}.layers.{j}.{name}' for name in names)


def torchvision_block(i: int, j: int) -> tuple[str, ...]:
    start = f'features.{2 * i + 1}.{j}'
    names = ('block.0', 'block.2', 'block.3', 'block.5', 'layer_scale', '', '')
    return tuple(f'{start}.{name}' for name in names)


def original(**others) -> Package:
    return Package(
        ('downsample_layers.0.0', 'downsample_layers.0.1'),
        lambda i: (f'downsample_layers.{i}.0', f'downsample_layers.{i}.1'),
        original_block,
        **{'last': ('norm', 'head'), **others},
    )


def mmpretrain(start: str = 'backbone.', stages: int = len(DIMS)) -> Package:
    return Package(
        (f'{start}downsample_layers.0.0', f'{start}downsample_layers.0.1'),
        lambda i: tuple(f'{start}downsample_layers.{i}.{k}' for k in (0, 1)),
        mmpretrain_block(start),
        (f'{start}norm{stages - 1}', 'head.fc'),
    )


def transformers(start: str, v2: bool, **others) -> Package:
    return Package(
        tuple(f'{start}embeddings.{n}' for n in ('patch_embeddings', 'layernorm')),
        lambda i: tuple(
            f'{start}encoder.stages.{i}.downsampling_layer.{k}' for k in (0, 1)
        ),
        transformers_block(start),
        **{'last': (f'{start}layernorm', 'classifier'), **others},
        v2=v2,
        shapes=dict(grn=lambda value: value[None, None, None]),
    )


def dinov3(start: str) -> Package:
    return Package(
        tuple(f'{start}stages.0.downsample_layers.{k}' for k in (0, 1)),
        lambda i: tuple(f'{start}stages.{i}.downsample_layers.{k}' for k in (0, 1)),
        dinov3_block(start),
        ('layer_norm', ''),
        v2=False,
    )


TIMM = Package(
    ('stem.0', 'stem.1'),
    lambda i: (f'stages.{i}.downsample.0', f'stages.{i}.downsample.1'),
    timm_block('stages.'),
    ('head.norm', 'head.fc'),
)

# Name -> the format that it should be recognised as, and what the package calls things.
PACKAGES = {
    'release': ('convnext', original(v2=False)),
    'release of V2': (
        'convnext',
        original(v2=True, shapes=dict(grn=lambda value: value[None, None, None])),
    ),
    'DINOv3': ('dinov3', original(last=('norm', ''), v2=False)),
    'mmpretrain': ('mmpretrain', mmpretrain()),
    'mmpretrain backbone': ('mmpretrain', mmpretrain('')._replace(last=None)),
    'mmdet backbone': (
        'mmpretrain',
        mmpretrain('')._replace(last=None, outputs=lambda i: f'norm{i}'),
    ),
    'timm': ('timm', TIMM),
    'timm conv_mlp': (
        'timm',
        TIMM._replace(shapes=dict(linear=lambda value: value[:, :, None, None])),
    ),
    'timm without head': ('timm', TIMM._replace(last=('head.norm', ''))),
    'timm features': (
        'timm-features',
        TIMM._replace(
            stem=('stem_0', 'stem_1'),
            down=lambda i: (f'stages_{i}.downsample.0', f'stages_{i}.downsample.1'),
            block=timm_block('stages_'),
            last=None,
        ),
    ),
    'torchvision': (
        'torchvision',
        Package(
            ('features.0.0', 'features.0.1'),
            lambda i: (f'features.{2 * i}.0', f'features.{2 * i}.1'),
            torchvision_block,
            ('classifier.0', 'classifier.2'),
            v2=False,
            shapes=dict(scale=lambda value: value[:, None, None]),
        ),
    ),
    'transformers convnext': ('transformers', transformers('convnext.', False)),
    'transformers convnextv2': ('transformers', transformers('convnextv2.', True)),
    'transformers base model': (
        'transformers',
        transformers('', False, last=('layernorm', '')),
    ),
    'transformers backbone': (
        'transformers',
        transformers(
            '', True, last=None, outputs=lambda i: f'hidden_states_norms.stage{i + 1}'
        ),
    ),
    'transformers DINOv3': ('transformers-dinov3', dinov3('')),
    'transformers DINOv3, written by 5.x': ('transformers-dinov3', dinov3('model.')),
}

CASES = [
    (name, v2)
    for name, (_, package) in PACKAGES.items()
    for v2 in ((False, True) if package.v2 is None else (package.v2,))
]


def random_weights(
    package: Package,
    v2: bool,
    dtype=torch.float64,
    depths: tuple[int, ...] = DEPTHS,
    dims: tuple[int, ...] = DIMS,
    classes: int = CLASSES,
) -> dict:
    """Return a state_dict in which every value counts and none explodes."""
    weights = {}

    def add(key: str, *shape: int, center: float = 0.0, kind: str = '') -> None:
        spread = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.2
        value = center + spread * torch.randn(shape, dtype=dtype)
        weights[key] = package.shapes.get(kind, lambda value: value)(value)

    def pair(name: str, *shape: int, norm: bool = False, kind: str = '') -> None:
        add(f'{name}.weight', *shape, center=float(norm), kind=kind)
        add(f'{name}.bias', shape[0])

    pair(package.stem[0], dims[0], 3, 4, 4)
    pair(package.stem[1], dims[0], norm=True)
    for i, (depth, dim) in enumerate(zip(depths, dims)):
        if i:
            norm, conv = package.down(i)
            pair(norm, dims[i - 1], norm=True)
            pair(conv, dim, dims[i - 1], 2, 2)
        for j in range(depth):
            dw, norm, first, second, scale, gamma, beta = package.block(i, j)
            pair(dw, dim, 1, 7, 7)
            pair(norm, dim, norm=True)
            pair(first, 4 * dim, dim, kind='linear')
            pair(second, dim, 4 * dim, kind='linear')
            if v2:
                add(gamma, 4 * dim, kind='grn')
                add(beta, 4 * dim, kind='grn')
            else:
                add(scale, dim, center=1.0, kind='scale')
        if package.outputs:
            pair(package.outputs(i), dim, norm=True)
    if package.last:
        pair(package.last[0], dims[-1], norm=True)
        if package.last[1]:
            pair(package.last[1], classes, dims[-1])
    return weights


class Outputs(NamedTuple):
    """What a package computes: the stages' images, and pooled and classified ones."""

    stages: list[Tensor]
    pooled: Tensor | None
    logits: Tensor | None


def forward(
    package: Package, weights: dict, x: Tensor, depths: tuple[int, ...] = DEPTHS
) -> Outputs:
    """Compute what a package does with its weights, step by step."""

    def affine(name: str) -> tuple[Tensor, Tensor]:
        return weights[f'{name}.weight'], weights[f'{name}.bias']

    def norm(name: str, x: Tensor) -> Tensor:
        weight, bias = affine(name)
        x = x - x.mean(1, keepdim=True)
        x = x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt()
        shape = (-1, *(1,) * (x.ndim - 2))
        return x * weight.view(shape) + bias.view(shape)

    def dense(name: str, x: Tensor) -> Tensor:
        weight, bias = affine(name)
        return torch.einsum('oi,bihw->bohw', weight.flatten(1), x) + bias[:, None, None]

    x = norm(package.stem[1], F.conv2d(x, *affine(package.stem[0]), stride=4))
    stages = []
    for i, depth in enumerate(depths):
        if i:
            before, conv = package.down(i)
            x = F.conv2d(norm(before, x), *affine(conv), stride=2)
        for j in range(depth):
            dw, before, first, second, scale, gamma, beta = package.block(i, j)
            y = F.conv2d(x, *affine(dw), padding=3, groups=x.shape[1])
            y = dense(first, norm(before, y))
            y = y * (1 + torch.erf(y / 2**0.5)) / 2
            if gamma in weights:
                size = y.square().sum((2, 3), keepdim=True).sqrt()
                size = size / (size.mean(1, keepdim=True) + 1e-6)
                along = (-1, 1, 1)
                y = (
                    weights[gamma].view(along) * y * size
                    + weights[beta].view(along)
                    + y
                )
            y = dense(second, y)
            if scale in weights:
                y = y * weights[scale].view(-1, 1, 1)
            x = x + y
        stages.append(norm(package.outputs(i), x) if package.outputs else x)
    pooled = logits = None
    if package.last:
        pooled = norm(package.last[0], x.mean((2, 3)))
        if package.last[1]:
            weight, bias = affine(package.last[1])
            logits = pooled @ weight.T + bias
    return Outputs(stages, pooled, logits)
