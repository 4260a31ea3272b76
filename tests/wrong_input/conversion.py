"""State_dicts and arguments that the conversions refuse."""

from collections import OrderedDict

import torch
from torch import nn

from dcls_mm import conversion
from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.layers import (
    DCLSConv2d,
    RotatedDCLSConv2d,
    SteeredDCLSConv2d,
    dropin,
)
from dcls_mm.layers.dropin import LegacyDcls2d

from . import wrong

# Function -> its other required arguments.
ARGUMENTS = {
    'from_published': dict(version='v0', dilated_kernel_size=5),
    'to_published': dict(version='v0', dilated_kernel_size=5),
    'from_legacy': dict(dilation=2),
    'to_legacy': dict(kernel_size=3, dilation=2),
    'from_convnext': {},
    'to_convnext': dict(dilated_kernel_size=5),
    'from_convnext_dcls': dict(version='v0'),
    'to_convnext_dcls': dict(version='v0'),
    'from_mmdet2': dict(version='v0'),
    'from_mmseg0': dict(version='v0'),
}

PUBLISHED = dropin.Dcls2d(4, 4, 3, dilated_kernel_size=5, version='v0').state_dict()
PLAIN = dict(
    ConvNeXtDCLS(
        dict(depths=[2], dims=[4]),
        depthwise_cfg=dict(type='Conv2d', kernel_size=7),
        out_indices=0,
    ).state_dict()
)
BACKBONE = {
    **PLAIN,
    **{f'stages.0.{i}.dwconv.weight': torch.zeros(4, 1, 3) for i in range(2)},
    **{f'stages.0.{i}.dwconv.P': torch.zeros(2, 4, 1, 3) for i in range(2)},
}
LEGACY = dict(LegacyDcls2d(4, 4, 3).state_dict())


def convert(function, state_dict, **arguments):
    arguments = {**ARGUMENTS[function], **arguments}
    return lambda: getattr(conversion, function)(state_dict, **arguments)


def plain(**replaced):
    """Return a published layer's values, some replaced or removed (...)."""
    values = {**PUBLISHED, **replaced}
    return {key: value for key, value in values.items() if value is not ...}


def noting(notes):
    noted = OrderedDict(plain())
    noted._metadata = notes
    return noted


def noted_layer(key='', **options):
    """Return the state_dict of a square DCLSConv2d, with its metadata."""
    layer = DCLSConv2d(4, 4, 3, groups=4, dilation=2, **options)
    prefix = f'{key}.' if key else ''
    return layer.state_dict(prefix=prefix)


DWCONV = 'stages.0.0.dwconv'
OTHER_EXTENT = 'as the metadata of state_dict say, got'

NO_DICT = 'state_dict must be a dict of tensors by name'
NOT_FLOATING = 'must be a tensor of floating point, got'

ROWS = [
    # Layers whose metadata contradict the given interpolation or extent.
    wrong(
        convert('to_published', noted_layer(interpolation='gauss'), version='max'),
        *(ValueError, "P is of interpolation 'gauss'", "version='max' would compute"),
    ),
    wrong(
        convert('to_published', noted_layer(), dilated_kernel_size=(3, 5)),
        *(ValueError, 'P is of the extent (5, 5)', OTHER_EXTENT, '(3, 5)'),
    ),
    wrong(
        convert('to_published', noted_layer(local_size=3)),
        *(ValueError, 'local_weight must not be in the', 'package has no local branch'),
    ),
    wrong(
        convert('to_legacy', noted_layer(local_size=3)),
        *(ValueError, 'local_weight must not be in the', 'layer has no local branch'),
    ),
    *(
        wrong(
            convert(function, turned),
            *(ValueError, 'P is of a layer that turns its elements', 'fold the model'),
        )
        for function in ('to_published', 'to_legacy')
        for turned in (
            RotatedDCLSConv2d(4, 16, 3, dilation=2).state_dict(),
            SteeredDCLSConv2d(4, 4, 3, dilation=2, groups=4).state_dict(),
        )
    ),
    wrong(
        convert('to_published', noted_layer(dilated_kernel_size=(5, 7)), version='v0'),
        *(ValueError, 'P is of the extent (5, 7)', OTHER_EXTENT, '(5, 5)'),
    ),
    wrong(
        convert('to_convnext_dcls', noted_layer(interpolation='max'), version='gauss'),
        *(ValueError, "of interpolation 'max'", "version='gauss' would compute"),
    ),
    wrong(
        convert('to_convnext', noted_layer(DWCONV, local_size=3, branch_norms=True)),
        *(ValueError, 'no norms', f'{DWCONV}.branch_norms.', 'fold the model with'),
    ),
    wrong(
        convert(
            'to_convnext',
            RotatedDCLSConv2d(4, 4, 3, groups=4, dilation=2).state_dict(
                prefix=f'{DWCONV}.'
            ),
        ),
        *(ValueError, f'{DWCONV}.P is of a layer that turns its elements'),
    ),
    wrong(
        convert('to_convnext', noted_layer(DWCONV, interpolation='gauss')),
        *(ValueError, 'bilinear'),
    ),
    wrong(
        convert(
            *('to_convnext', noted_layer(DWCONV, interpolation='gauss')),
            interpolation='max',
        ),
        *(ValueError, f'{DWCONV}.P is of interpolation', "interpolation='max' would"),
    ),
    wrong(
        convert('to_convnext', noted_layer(DWCONV), dilated_kernel_size=3),
        *(ValueError, f'{DWCONV}.P is of the extent (5, 5)', 'without_extent'),
    ),
    wrong(
        convert('to_legacy', noted_layer(interpolation='gauss')),
        *(ValueError, "P is of interpolation 'gauss'", 'a legacy layer would'),
    ),
    wrong(
        convert('to_legacy', dict(noted_layer(interpolation='max'))),
        *(ValueError, 'state_dict has SIG', "legacy layers are 'bilinear'"),
    ),
    wrong(
        convert('to_legacy', noted_layer(dilated_kernel_size=9)),
        *(ValueError, 'P is of the extent (9, 9)', OTHER_EXTENT, '(5, 5)'),
    ),
    # Objects that are no state_dict, for every function.
    *(
        wrong(convert(function, None), TypeError, NO_DICT, 'got NoneType')
        for function in ARGUMENTS
    ),
    wrong(
        convert('from_published', nn.Conv2d(1, 1, 1)),
        TypeError,
        'got Conv2d: call its state_dict()',
    ),
    wrong(
        convert('from_convnext', 'convnext.pth'),
        TypeError,
        'got str: load the file and pass the weights in it',
    ),
    wrong(convert('to_legacy', torch.zeros(3)), TypeError, NO_DICT, 'got Tensor'),
    wrong(
        convert('from_convnext_dcls', list(PUBLISHED.items())),
        TypeError,
        NO_DICT,
        'got list',
    ),
    wrong(
        convert('from_mmdet2', {0: torch.zeros(1)}),
        TypeError,
        'the keys of state_dict must be the names of parameters, got 0 (int)',
    ),
    wrong(convert('from_legacy', {None: 1}), TypeError, 'names', 'got None (NoneType)'),
    wrong(convert('to_convnext', {('P',): 1}), TypeError, "got ('P',) (tuple)"),
    # State_dicts of other things.
    wrong(
        convert('from_published', {}),
        ValueError,
        "state_dict has no layer with P and weight under the prefix ''",
    ),
    wrong(
        convert('to_published', {'state_dict': PUBLISHED}),
        ValueError,
        'pass the weights themselves, not a checkpoint around them',
        "['state_dict']",
    ),
    wrong(
        convert('from_published', PUBLISHED, prefix='backbone.'),
        ValueError,
        "under the prefix 'backbone.'",
        "['weight', 'P', 'bias']",
    ),
    wrong(
        convert('from_published', PUBLISHED, prefix=None),
        TypeError,
        "prefix must be what keys start with, such as 'backbone.', got None",
    ),
    wrong(
        convert('from_convnext_dcls', BACKBONE, prefix=0),
        TypeError,
        'prefix must be',
        'got 0',
    ),
    wrong(
        convert('from_published', PUBLISHED),
        ValueError,
        'P is of a layer of dcls_mm already',
        'load it as it is',
    ),
    wrong(
        convert('to_published', nn.Sequential().state_dict()),
        ValueError,
        'no layer with P and weight',
    ),
    wrong(
        convert('from_convnext', {}),
        ValueError,
        'state_dict is not of a ConvNeXt with the keys of any of the original release',
        'it has no keys',
    ),
    wrong(
        convert('from_convnext', BACKBONE),
        ValueError,
        'state_dict has positions already, in the keys of ConvNeXt-dcls',
        'from_convnext_dcls',
    ),
    wrong(
        convert('from_convnext', PLAIN, release='timm'),
        ValueError,
        'state_dict is not of timm, but of the original release',
        "release='convnext'",
    ),
    wrong(
        convert('to_convnext', PLAIN),
        ValueError,
        'not of ConvNeXtDCLS',
        'stages.0.0.dwconv.P',
    ),
    wrong(
        convert('to_convnext', {'stages.0.0.dwconv.P': torch.zeros(2, 4, 1, 3)}),
        ValueError,
        'no layer with P and weight',
    ),
    wrong(
        convert('from_mmdet2', {'backbone.a': 1, 'decode_head.b': 2}),
        ValueError,
        'not of a two-stage detector of mmdet 2, which has no decode_head.b',
    ),
    wrong(
        convert('from_mmseg0', {'decode_head.b': 2}),
        ValueError,
        'not of a segmentor of mmseg 0: it has no keys with backbone.',
    ),
    # Values that can't be weights.
    wrong(
        convert('from_published', plain(P=[0.0])), TypeError, 'P', NOT_FLOATING, 'list'
    ),
    wrong(
        convert('from_published', plain(weight=None)),
        TypeError,
        f'weight {NOT_FLOATING} NoneType',
    ),
    wrong(
        convert('to_published', plain(P=torch.zeros(2, 4, 4, 3, dtype=torch.long))),
        TypeError,
        f'P {NOT_FLOATING} torch.int64',
    ),
    wrong(
        convert('from_published', plain(P=torch.zeros(2, 4, 4, 3, dtype=torch.cfloat))),
        TypeError,
        f'P {NOT_FLOATING} torch.complex64',
    ),
    wrong(
        convert('from_published', plain(P=PUBLISHED['P'].numpy())),
        TypeError,
        f'P {NOT_FLOATING} ndarray',
    ),
    wrong(
        convert('from_published', plain(SIG='0.23'), version='gauss'),
        TypeError,
        f'SIG {NOT_FLOATING} str',
    ),
    wrong(
        convert('from_published', plain(P=torch.tensor(1.0))),
        ValueError,
        'P must have the shape (rows, *weight',
        'got () for the weight (4, 4, 3)',
    ),
    wrong(
        convert('from_published', plain(P=torch.zeros(2, 4, 4, 5))),
        ValueError,
        'got (2, 4, 4, 5) for the weight (4, 4, 3)',
    ),
    wrong(
        convert('from_published', plain(SIG=torch.zeros(2, 4, 4, 3))),
        ValueError,
        "state_dict has SIG, which only versions 'max' and 'gauss' have",
        "version can't be 'v0'",
    ),
    wrong(
        convert('from_published', plain(), version='gauss'),
        ValueError,
        'state_dict lacks SIG',
        "version can't be 'gauss'",
    ),
    wrong(
        convert('from_published', plain(SIG=torch.zeros(1, 4, 4, 3)), version='max'),
        ValueError,
        'SIG must be shaped like P, (2, 4, 4, 3), got (1, 4, 4, 3)',
    ),
    wrong(
        convert('from_convnext', {**PLAIN, 'stages.0.0.dwconv.weight': None}),
        TypeError,
        f'stages.0.0.dwconv.weight {NOT_FLOATING} NoneType',
    ),
    wrong(
        convert(
            'from_convnext',
            {
                **PLAIN,
                'stages.0.0.dwconv.weight': torch.zeros(4, 1, 7, 7, dtype=torch.int8),
            },
        ),
        TypeError,
        NOT_FLOATING,
        'torch.int8',
    ),
    wrong(
        convert(
            'from_convnext',
            {**PLAIN, 'stages.0.0.dwconv.weight': torch.zeros(4, 4, 7, 7)},
        ),
        ValueError,
        'must be depthwise, (channels, 1, height, width), got (4, 4, 7, 7)',
    ),
    wrong(
        convert(
            'from_convnext_dcls',
            {**BACKBONE, 'stages.0.1.dwconv.P': torch.ones(2, 4, 1, 3)},
        ),
        ValueError,
        'stages.0.1.dwconv.P differs from stages.0.0.dwconv.P',
        'sync_positions=False',
    ),
    wrong(
        convert('from_convnext_dcls', {**BACKBONE, 'stages.0.0.dwconv.P': [0.0]}),
        TypeError,
        f'stages.0.0.dwconv.P {NOT_FLOATING} list',
    ),
    wrong(
        convert(
            'to_convnext', {**BACKBONE, 'stages.0.0.dwconv.P': torch.zeros(3, 4, 1, 3)}
        ),
        ValueError,
        'P must have a row for each of the axes 0 and 1, got 3',
    ),
    wrong(
        convert('to_convnext', BACKBONE, interpolation='gauss'),
        ValueError,
        'lacks stages.0.0.dwconv.SIG',
        "interpolation can't be 'gauss'",
    ),
    wrong(
        convert(
            'to_convnext',
            {
                **BACKBONE,
                **{f'stages.0.{i}.dwconv.SIG': torch.ones(2, 4, 1, 3) for i in (0, 1)},
            },
        ),
        ValueError,
        'has stages.0.0.dwconv.SIG',
        "interpolation can't be 'bilinear'",
    ),
    wrong(
        convert('from_legacy', plain()),
        ValueError,
        'weight must have the shape (out, in // groups, kh, kw), got (4, 4, 3)',
    ),
    wrong(
        convert('to_legacy', plain()),
        ValueError,
        'kernel_size (3, 3) has 9 elements, but weight has 3',
    ),
    wrong(
        convert('from_legacy', LEGACY, formulation='sample'),
        ValueError,
        "P must have the shape (2, 4, 3, 3) in the formulation 'sample'",
        'got (2, 4, 4, 3, 3)',
    ),
    wrong(
        convert(
            'to_legacy', plain(P=torch.full((2, 4, 4, 3), 9.0)), kernel_size=(3, 1)
        ),
        ValueError,
        'positions beyond the extent of kernel_size (3, 1) and dilation (2, 2)',
    ),
    # Invalid metadata.
    wrong(
        convert('from_published', noting(3)),
        TypeError,
        '_metadata of state_dict must be a dict with one dict per module, got 3',
    ),
    wrong(convert('to_legacy', noting({'': 5})), TypeError, '_metadata', 'got 5'),
    wrong(
        convert('to_published', noting({'': {'version': 1, 'position_axes': 'ab'}})),
        ValueError,
        'the metadata of state_dict must give axes for P',
        "got 'ab'",
    ),
    wrong(
        convert('to_legacy', noting({'': {'version': 1, 'position_axes': (1, 0)}})),
        ValueError,
        'P must stand for the axes (0, 1), got (1, 0)',
    ),
    wrong(
        convert('to_published', noting({'': {'version': 1}})),
        ValueError,
        'P is of the published package already',
    ),
    wrong(
        convert('to_published', noting({'': {'version': 1, 'position_axes': (0, 2)}})),
        ValueError,
        'P is for the axes (0, 2)',
    ),
]
