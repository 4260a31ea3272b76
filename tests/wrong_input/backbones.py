"""Wrong arguments of the backbones, and weights that don't fit them."""

from collections import OrderedDict

import torch
from mmengine.config import Config

import dcls_mm  # noqa: F401
from dcls_mm.backbones import ConvNeXtDCLS, DCLSDeconvModule, ReplacedConvBackbone
from dcls_mm.checkpoint import ContentError
from dcls_mm.checks.config_checks import ConfigError
from dcls_mm.checks.unused_outputs import check_outputs

from . import wrong

ARCH = dict(depths=[1, 1], dims=[4, 8])
GAUSS = dict(
    type='DCLSConv2d', kernel_count=3, dilated_kernel_size=5, interpolation='gauss'
)
PLAIN = dict(type='ConvNeXtDCLS', arch=ARCH, out_indices=-1)
LAYER = dict(type='DCLSConv2d', dilated_kernel_size=9)


def build(**options):
    """Build a small backbone."""
    return ConvNeXtDCLS(**{'arch': ARCH, 'out_indices': (0, 1), **options})


def convnext(**options):
    """Return a call that builds it."""
    return lambda: build(**options)


def depthwise(**options):
    return convnext(depthwise_cfg=options)


def run(*shape, **options):
    return lambda: build(**options)(torch.zeros(shape))


def replaced(backbone=PLAIN, layer=LAYER, name='dwconv', **options):
    return lambda: ReplacedConvBackbone(backbone, layer, name, **options)


def deconv(**options):
    return lambda: DCLSDeconvModule(4, 4, **options)


def pretrained(change=lambda weights: weights, depthwise_cfg=GAUSS, **init_cfg):
    """Return a call that loads 'gauss' weights, after ``change``."""

    def load():
        weights = change(build(depthwise_cfg=GAUSS).state_dict())
        torch.save(weights, 'weights.pth')
        cfg = dict(type='Pretrained', checkpoint='weights.pth', **init_cfg)
        build(depthwise_cfg=depthwise_cfg, init_cfg=cfg).init_weights()

    return load


def as_published(weights):
    """Drop the metadata that our layers note."""
    metadata = OrderedDict((name, dict(version=1)) for name in weights._metadata)
    weights._metadata = metadata
    return {'model': weights}


def without(key):
    return lambda weights: {k: v for k, v in weights.items() if k != key}


def outputs(**model):

    backbone = dict(type='ConvNeXtDCLS')
    cfg = dict(model=dict(backbone=backbone, **model), launcher='pytorch')
    return lambda: check_outputs(Config(cfg))


BOOLEAN = 'must be True or False, got '

ROWS = [
    # Numbers and booleans of ConvNeXtDCLS.
    wrong(
        convnext(in_channels='3'), TypeError, "in_channels must be an integer, got '3'"
    ),
    wrong(convnext(in_channels=0), ValueError, 'in_channels must be at least 1, got 0'),
    wrong(
        convnext(drop_path_rate='0.1'),
        TypeError,
        "drop_path_rate must be a number, got '0.1'",
    ),
    wrong(
        convnext(drop_path_rate=1), ValueError, 'drop_path_rate must be in [0, 1), go'
    ),
    wrong(
        convnext(drop_path_rate=-0.1),
        ValueError,
        'drop_path_rate must be finite and at least 0, got -0.1',
    ),
    wrong(
        convnext(layer_scale_init_value=float('nan')),
        ValueError,
        *('layer_scale_init_value must be finite', 'got nan'),
    ),
    wrong(
        convnext(layer_scale_init_value=None),
        TypeError,
        'layer_scale_init_value must be a number, got None',
    ),
    wrong(
        convnext(sync_positions='no'), TypeError, 'sync_positions ' + BOOLEAN + "'no'"
    ),
    wrong(convnext(with_cp=1), TypeError, 'with_cp ' + BOOLEAN + '1'),
    wrong(convnext(frozen_stages=3), ValueError, 'frozen_stages must be at most 2'),
    wrong(convnext(frozen_stages='1'), TypeError, 'frozen_stages must be an integer'),
    wrong(convnext(frozen_stages=-2), ValueError, 'frozen_stages must be at least -1'),
    # Inputs.
    wrong(
        lambda: convnext()()(None),
        *(TypeError, 'the input must be a torch.Tensor, got None'),
    ),
    wrong(
        lambda: convnext()()(torch.zeros(1, 3, 64, 64).numpy()),
        *(TypeError, 'the input must be a torch.Tensor, got a ndarray'),
    ),
    wrong(
        lambda: convnext()()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)),
        *(TypeError, 'the input must be of a floating dtype', 'torch.uint8'),
    ),
    # Stages.
    wrong(convnext(out_indices=()), ValueError, 'out_indices', 'one or more', 'got ()'),
    wrong(convnext(out_indices=2), ValueError, 'out_indices', '0..1', 'got 2'),
    wrong(convnext(out_indices=-3), ValueError, 'out_indices must be at least -2'),
    wrong(
        convnext(out_indices=(1, 0)),
        ValueError,
        'out_indices must be one or more ascending',
        '(1, 0)',
    ),
    wrong(
        convnext(out_indices=(1, -1)),
        ValueError,
        'out_indices must be one or more ascending',
        '(1, -1)',
    ),
    wrong(
        convnext(out_indices='1'), TypeError, "out_indices must be an integer, got '1"
    ),
    wrong(
        convnext(out_indices=None), TypeError, 'out_indices must be an integer, got N'
    ),
    wrong(convnext(out_indices=(0.0, 1)), TypeError, 'out_indices must be an integer'),
    wrong(convnext(arch='vast'), ValueError, 'arch must be one of', "'tiny'", "'vast'"),
    wrong(convnext(arch=None), ValueError, 'arch must be a dict(depths=..., dims=...)'),
    wrong(
        convnext(arch=dict(depths=[1])), ValueError, 'arch must be a dict(depths=...,'
    ),
    wrong(
        convnext(arch=dict(depths=3, dims=[8])),
        TypeError,
        'arch.depths must be integers, one per stage, got 3',
    ),
    wrong(
        convnext(arch=dict(depths=[3], dims='8')),
        TypeError,
        "arch.dims must be integers, one per stage, got '8'",
    ),
    wrong(
        convnext(arch=dict(depths=[1, 1], dims=[8])),
        ValueError,
        'arch must have as many depths as dims, one per stage, got 2 and 1',
    ),
    wrong(
        convnext(arch=dict(depths=['1', '1'], dims=[4, 8])),
        TypeError,
        "arch.depths must be an integer, got '1'",
    ),
    wrong(
        convnext(arch=dict(depths=[1, 0], dims=[4, 8])),
        ValueError,
        'arch.depths must be at least 1, got 0',
    ),
    # The depthwise convolutions.
    wrong(
        convnext(depthwise_cfg='DCLSConv2d'),
        TypeError,
        *("depthwise_cfg must be a dict, such as dict(type='DCLSConv2d'", 'got '),
    ),
    wrong(
        convnext(depthwise_cfg=17), TypeError, 'depthwise_cfg must be a dict', 'got 17'
    ),
    wrong(
        depthwise(type='DCLSConv2', kernel_size=7),
        ValueError,
        *("depthwise_cfg must name a registered conv as 'type'", "got 'DCLSConv2'"),
    ),
    wrong(
        depthwise(kernel_size=7), ValueError, "registered conv as 'type'", 'got None'
    ),
    wrong(
        depthwise(type='Conv2d', kernel_size=7, groups=4, stride=2),
        ValueError,
        "depthwise_cfg must leave out ['groups', 'stride']",
    ),
    wrong(
        depthwise(type='Conv2d'),
        ValueError,
        'depthwise_cfg must give kernel_size or dilated_kernel_size',
    ),
    wrong(
        depthwise(type='Conv2d', kernel_size=6),
        ValueError,
        'the extent must be odd to keep the size, got (6, 6)',
    ),
    wrong(
        depthwise(type='Conv2d', kernel_size='7'),
        TypeError,
        *('depthwise_cfg.kernel_size must be an integer', "got '7'"),
    ),
    wrong(
        depthwise(type='DCLSConv2d', kernel_count='34', dilated_kernel_size=17),
        TypeError,
        "kernel_count must be an integer, got '34'",
    ),
    wrong(
        depthwise(type='DCLSConv2d', kernel_count=0, dilated_kernel_size=17),
        ValueError,
        'kernel_count must be at least 1, got 0',
    ),
    wrong(
        depthwise(type='FlexConv2d', dilated_kernel_size=9, mask_width='0.1'),
        TypeError,
        "mask_width must be a number, got '0.1'",
    ),
    wrong(
        depthwise(**GAUSS, initial_sigma=float('nan')),
        ValueError,
        'initial_sigma must be finite, got nan',
    ),
    # Images.
    wrong(
        run(1, 4, 32, 32), ValueError, '(batch, 3, height, width), got (1, 4, 32, 32)'
    ),
    wrong(run(3, 32, 32), ValueError, '(batch, 3, height, width), got (3, 32, 32)'),
    wrong(
        run(1, 3, 7, 32),
        ValueError,
        *('at least 8 x 8 pixels, which make one in the last stage', '(1, 3, 7, 32)'),
    ),
    wrong(
        run(1, 3, 32, 3, out_indices=0),
        ValueError,
        'at least 4 x 4 pixels',
        'got (1, 3, 32, 3)',
    ),
    # Files.
    wrong(
        pretrained(as_published),
        ContentError,
        *('weights.pth: stages.0.0.dwconv.P', "version='gauss'"),
    ),
    wrong(
        pretrained(dict), ContentError, 'P: the state_dict has no metadata', '=(0, 1)'
    ),
    wrong(
        pretrained(version='gauss'), ContentError, 'is of a layer of dcls_mm already'
    ),
    wrong(
        pretrained(dict, version='gaus'),
        ContentError,
        *("version must be one of ['v0', 'v1', 'max', 'gauss']", "got 'gaus'"),
    ),
    wrong(
        pretrained(depthwise_cfg=dict(GAUSS, dilated_kernel_size=9)),
        ContentError,
        *('of a layer of extent (5, 5), this one has (9, 9)', 'any_extent=True'),
    ),
    wrong(
        pretrained(depthwise_cfg=dict(GAUSS, interpolation='max')),
        ContentError,
        "of interpolation 'gauss', the layer of 'max': build it with interpolation=",
    ),
    wrong(
        pretrained(any_extent='yes'),
        TypeError,
        'init_cfg.any_extent ' + BOOLEAN + "'yes'",
    ),
    wrong(
        pretrained(depthwise_cfg=dict(GAUSS, kernel_count=4)),
        ContentError,
        *(
            'is a ConvNeXt-dcls of depths 1, 1 and dims 4, 8 with 3 elements per',
            "give the backbone depthwise_cfg=dict(type='DCLSConv2d', kernel_count=3, ",
        ),
    ),
    wrong(
        pretrained(without('stages.1.0.gamma')),
        ContentError,
        'missing: stages.1.0.gamma',
    ),
    wrong(
        pretrained(prefix='backbone.'),
        ContentError,
        *("no keys with init_cfg's prefix 'backbone.'", 'stages.'),
    ),
    # ReplacedConvBackbone.
    wrong(replaced(None), TypeError, 'backbone must be a config, a dict', 'got None'),
    wrong(replaced('ResNet'), TypeError, "registered backbone as 'type', got 'ResNet'"),
    wrong(
        replaced(layer='DCLSConv2d'),
        TypeError,
        "layer must be a config, a dict with a registered layer as 'type'",
    ),
    wrong(
        replaced(layer=dict(dilated_kernel_size=9)), ValueError, "as 'type'", 'got None'
    ),
    wrong(
        replaced(layer=dict(type='Swapped')), ValueError, "as 'type'", "got 'Swapped'"
    ),
    wrong(
        replaced(layer=dict(LAYER, groups=2, bias=True)),
        ValueError,
        "layer must leave out ['bias', 'groups']",
    ),
    wrong(
        replaced(layer=dict(type='Conv2d')), TypeError, 'layer must be a class of conv'
    ),
    wrong(
        replaced(init_cfg=dict(type='Pretrained')),
        ValueError,
        'init_cfg must be in the config of the replaced backbone',
    ),
    wrong(
        replaced(dict(PLAIN, init_cfg=dict(type='Constant')), pretrained='a.pth'),
        ValueError,
        "pretrained='a.pth' is given although the backbone has its own init_cfg",
    ),
    wrong(replaced(name='stem'), ValueError, "name='stem'", 'match none of the'),
    wrong(replaced(name=7), TypeError, 'name must be a regular expression, got 7'),
    wrong(replaced(start='warm'), ValueError, "start must be one of ['conv', 'fresh']"),
    wrong(replaced(depthwise='no'), TypeError, 'depthwise must be True, False or None'),
    wrong(
        replaced(share_positions='('), ValueError, 'share_positions must be a regular'
    ),
    # The decoder's block.
    wrong(
        deconv(kernel_size='4'), TypeError, "kernel_size must be an integer, got '4'"
    ),
    wrong(deconv(scale_factor=0), ValueError, 'scale_factor must be at least 1, got 0'),
    wrong(deconv(with_cp='yes'), TypeError, 'with_cp ' + BOOLEAN + "'yes'"),
    wrong(
        deconv(kernel_size=5),
        ValueError,
        'kernel_size must be scale_factor or larger by an even number, got 5 and 2',
    ),
    # Outputs that nothing reads.
    wrong(
        outputs(neck=dict(type='FPN', start_level=1)),
        ConfigError,
        *('nothing uses the output of norm0', 'out_indices=(1, 2, 3)'),
    ),
    wrong(
        outputs(decode_head=dict(in_index=3)),
        ConfigError,
        *('norm0, norm1, norm2', 'find_unused_parameters=True'),
    ),
]
