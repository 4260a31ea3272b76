"""The published networks as their authors built them: timm's, with the dcls package.

Written from the description of the published code; it shares nothing with dcls_mm.
"""

import re

import torch

BUILDS = {
    'convnext_dcls_tiny': ('convnext_tiny', 17, 34, 'v0'),
    'convnext_dcls_tiny_gauss': ('convnext_tiny', 23, 26, 'gauss'),
    'convformer_dcls_s18': ('convformer_s18', 17, 40, 'v1'),
    'caformer_dcls_s18': ('caformer_s18', 17, 34, 'v1'),
    'fastvit_dcls_sa24': ('fastvit_sa24', 17, 34, 'v1'),
    'resnet50_dcls': ('resnet50', 7, 5, 'v0'),
}


def is_replaced(base, conv):
    if base.startswith('resnet'):
        return conv.kernel_size == (3, 3)
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    if base.startswith('fastvit'):
        return depthwise and conv.kernel_size == (7, 7)
    return depthwise


def published_network(name, seed=0, **options):
    """Return a published network with random weights, statistics and positions."""
    import timm
    from DCLS.construct.modules import Dcls2d

    base, extent, count, version = BUILDS[name]
    torch.manual_seed(seed)
    model = timm.create_model(base, **options)
    width, owner = 0, None
    for path, conv in list(model.named_modules()):
        if not isinstance(conv, torch.nn.Conv2d) or not is_replaced(base, conv):
            continue
        layer = Dcls2d(
            conv.in_channels,
            conv.out_channels,
            kernel_count=count,
            dilated_kernel_size=extent,
            padding=extent // 2,
            stride=conv.stride,
            groups=conv.groups,
            bias=conv.bias is not None,
            version=version,
        )
        if width < conv.in_channels:
            width, owner = conv.in_channels, layer
        layer.P = owner.P
        if version == 'gauss':
            layer.SIG = owner.SIG
        parent, _, attribute = path.rpartition('.')
        setattr(model.get_submodule(parent), attribute, layer)
    randomize(model, extent)
    return model.eval()


@torch.no_grad()
def randomize(model, extent):
    """Give every parameter and buffer a value that shows whether it was loaded."""
    for key, value in (*model.named_parameters(), *model.named_buffers()):
        if key.endswith('.P'):
            value.uniform_(-(extent // 2), extent // 2)
        elif key.endswith('running_var'):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point() and (value.ndim < 2 or 'layer_scale' in key):
            value.add_(torch.randn_like(value), alpha=0.1)
        elif value.is_floating_point() and re.search('conv_dw|dwconv|conv2', key):
            value.normal_(std=0.1)


# What the architectures' own repositories call timm's modules, in order.
ORIGINAL_NAMES = {
    'convnext': {
        r'^head\.norm\.': 'norm.',
        r'^head\.fc\.': 'head.',
        r'^stem\.': 'downsample_layers.0.',
        r'^stages\.(\d)\.downsample\.': r'downsample_layers.\1.',
        r'\.blocks\.': '.',
        'conv_dw': 'dwconv',
        r'mlp\.fc': 'pwconv',
    },
    'metaformer': {
        r'^head\.norm\.': 'norm.',
        r'^head\.fc\.': 'head.',
        r'^stem\.norm\.': 'downsample_layers.0.post_norm.',
        r'^stem\.': 'downsample_layers.0.',
        r'^stages\.(\d)\.downsample\.norm\.': r'downsample_layers.\1.pre_norm.',
        r'^stages\.(\d)\.downsample\.': r'downsample_layers.\1.',
        r'\.blocks\.': '.',
    },
    'fastvit': {
        r'^head\.fc\.': 'head.',
        r'^stem\.': 'patch_embed.',
        r'^stages\.3\.blocks\.': 'network.7.',
        r'^stages\.3\.pos_emb\.pos_enc\.': 'network.6.pe.',
        r'^stages\.3\.downsample\.': 'network.5.',
        r'^stages\.2\.blocks\.': 'network.4.',
        r'^stages\.2\.downsample\.': 'network.3.',
        r'^stages\.1\.blocks\.': 'network.2.',
        r'^stages\.1\.downsample\.': 'network.1.',
        r'^stages\.0\.blocks\.': 'network.0.',
        r'^final_conv\.': 'conv_exp.',
        r'\.mlp\.': '.convffn.',
        'conv_kxk': 'rbr_conv',
        'conv_scale': 'rbr_scale',
        r'\.identity\.': '.rbr_skip.',
        'large_conv': 'lkb_origin',
        r'\.se\.fc1\.': '.se.reduce.',
        r'\.se\.fc2\.': '.se.expand.',
        r'(layer_scale\w*)\.gamma$': r'\1',
    },
}


def original_state_dict(state_dict, family):
    """Rename timm's keys to the architecture's own; MetaFormer has linear layers."""
    original = {}
    for key, value in state_dict.items():
        for pattern, name in ORIGINAL_NAMES[family].items():
            key = re.sub(pattern, name, key)
        if family == 'metaformer' and re.search(r'(pwconv\d|mlp\.fc\d)\.weight', key):
            value = value.flatten(1)
        original[key] = value
    return original
