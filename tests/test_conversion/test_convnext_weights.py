"""Converted weights compute what they did in the other packages."""

import re
from collections import OrderedDict

import pytest
import torch
from conftest import assert_close

import dcls_mm  # noqa: F401
from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.conversion import (
    from_convnext,
    from_convnext_dcls,
    to_convnext,
    to_convnext_dcls,
)

GOLDEN = 'golden/convnext_dcls_small_sync.pt'
SMALL = dict(depths=[1, 2], dims=[8, 12])
GRID = dict(type='DCLSConv2d', kernel_count=49, dilated_kernel_size=17)


def build(depthwise_cfg, **arguments) -> ConvNeXtDCLS:
    """Build a small backbone in float64 in which every parameter matters."""
    backbone = ConvNeXtDCLS(
        arch=SMALL,
        depthwise_cfg=depthwise_cfg,
        layer_scale_init_value=1.0,
        out_indices=(0, 1),
        **arguments,
    )
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if not name.endswith(('.P', '.SIG')):
                parameter.normal_(std=0.3)
    return backbone.double()


def assert_same_outputs(actual, expected):
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    for ours, theirs in zip(actual(x), expected(x)):
        assert_close(ours, theirs)


def classifier(backbone) -> OrderedDict:
    """Return the original's classifier: a single norm after pooling, and a head."""
    state_dict = OrderedDict(
        (k, v) for k, v in backbone.state_dict().items() if not k.startswith('norm')
    )
    for key, shape in {'norm': (12,), 'head': (5, 12)}.items():
        state_dict[f'{key}.weight'] = torch.randn(shape, dtype=torch.float64)
        state_dict[f'{key}.bias'] = torch.randn(shape[0], dtype=torch.float64)
    return state_dict


# The inverse of the packages' own conversion of the original's keys, key by key.
def mmpretrain_key(key: str) -> str:
    if key.startswith('head'):
        return key.replace('head', 'head.fc')
    key = key.replace('dwconv', 'depthwise_conv').replace('pwconv', 'pointwise_conv')
    return 'backbone.' + re.sub('^norm', 'norm3', key)


def timm_key(key: str) -> str:
    parts = key.split('.')
    inner = {'dwconv': 'conv_dw', 'pwconv1': 'mlp.fc1', 'pwconv2': 'mlp.fc2'}
    if parts[0] == 'downsample_layers':
        stage = parts[1]
        start = ['stem'] if stage == '0' else ['stages', stage, 'downsample']
        parts = [*start, *parts[2:]]
    elif parts[0] == 'stages':
        _, stage, block, name, *rest = parts
        parts = ['stages', stage, 'blocks', block, inner.get(name, name), *rest]
    else:
        parts = ['head', {'norm': 'norm', 'head': 'fc'}[parts[0]], *parts[1:]]
    return '.'.join(parts)


FORMS = {'convnext': str, 'mmpretrain': mmpretrain_key, 'timm': timm_key}


@pytest.fixture
def plain():
    return build(dict(type='Conv2d', kernel_size=7))


@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle', 'max'])
@pytest.mark.parametrize('release', FORMS)
def test_plain_weights_on_a_grid(plain, release, interpolation):
    """The outputs' norms, which a classifier lacks, are copied separately."""
    source = classifier(plain)
    theirs = OrderedDict((FORMS[release](k), v) for k, v in source.items())
    converted = from_convnext(theirs, release=release, interpolation=interpolation)
    ours = build({**GRID, 'interpolation': interpolation})
    norms = {k: v for k, v in plain.state_dict().items() if k.startswith('norm')}
    head = {k: converted.pop(k) for k in source if k.startswith(('norm', 'head'))}
    assert all(torch.equal(source[key], value) for key, value in head.items())
    converted.update(norms)
    ours.load_state_dict(converted)
    assert_same_outputs(ours, plain)
    # The blocks of a stage share P here, so theirs must be equal.
    first, second = (converted[f'stages.1.{i}.dwconv.P'] for i in range(2))
    assert torch.equal(first, second)
    assert first.shape == (2, 12, 1, 49) and first.abs().max() == 3


def test_norms_of_a_dense_backbone_stay(plain):
    def key(k):
        return k.replace('dwconv', 'depthwise_conv').replace('pwconv', 'pointwise_conv')

    theirs = OrderedDict(
        (f'backbone.{key(k)}', v) for k, v in plain.state_dict().items()
    )
    converted = from_convnext(theirs, release='mmpretrain')
    ours = build(GRID)
    ours.load_state_dict(converted)
    assert_same_outputs(ours, plain)


def test_linear_layers_as_convolutions(plain):
    theirs = plain.state_dict()
    for key, value in theirs.items():
        if '.pwconv' in key and value.ndim == 2:
            theirs[key] = value[:, :, None, None]
    ours = build(GRID)
    ours.load_state_dict(from_convnext(theirs))
    assert_same_outputs(ours, plain)


def test_conversion_leaves_input_and_random_numbers(plain):
    theirs = plain.state_dict()
    before = {key: value.clone() for key, value in theirs.items()}
    state = torch.random.get_rng_state()
    from_convnext(theirs)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(theirs) == list(before)
    assert all(torch.equal(theirs[key], value) for key, value in before.items())


@pytest.mark.parametrize('local_size', [None, 3])
@pytest.mark.parametrize('axes', [(0, 1), (1, 0)])
@pytest.mark.parametrize('interpolation', ['bilinear', 'gauss'])
def test_learned_kernels_become_dense(interpolation, axes, local_size):
    extent = (9, 5)
    cfg = dict(
        type='DCLSConv2d',
        kernel_count=6,
        dilated_kernel_size=extent,
        interpolation=interpolation,
        position_axes=axes,
        local_size=local_size,
    )
    ours = build(cfg)
    dense = to_convnext(
        ours.state_dict(), dilated_kernel_size=extent, interpolation=interpolation
    )
    plain = build(dict(type='Conv2d', kernel_size=extent))
    plain.load_state_dict(dense)
    assert_same_outputs(plain, ours)


def test_there_and_back_gives_the_grown_kernels(plain):
    dense = to_convnext(from_convnext(plain.state_dict()), dilated_kernel_size=17)
    for key, value in plain.state_dict().items():
        grown = key.endswith('dwconv.weight')
        expected = torch.nn.functional.pad(value, [5] * 4) if grown else value
        assert torch.equal(dense[key], expected), key


@pytest.mark.parametrize(
    ('release', 'change', 'message'),
    [
        (
            'convnext',
            lambda s: {**s, 'stages.0.0.grn.gamma': s['norm.bias']},
            'original release, which needs stages.0.0.grn.beta, stages.1.0.grn.beta',
        ),
        (
            'convnext',
            lambda s: {timm_key(k): v for k, v in s.items()},
            "not of the original release, but of timm: give release='timm'$",
        ),
        ('timm', lambda s: {'norm.weight': s['norm.weight']}, 'it has norm.weight$'),
        ('timm', lambda s: {}, 'keys of timm: it has no keys$'),
        ('timm', lambda s: s, "not of timm, but of the original .*'convnext'$"),
        ('torch', lambda s: s, "release must be one of .*'timm'.*got 'torch'"),
        (
            'convnext',
            lambda s: {**s, 'stages.0.0.dwconv.weight': torch.ones(8, 8, 7, 7)},
            r'stages.0.0.dwconv.weight must be depthwise.*\(8, 8, 7, 7\)',
        ),
        (
            'mmpretrain',
            lambda s: {
                **{mmpretrain_key(k): v for k, v in s.items()},
                'backbone.stages.0.0.depthwise_conv.P': s['norm.bias'],
            },
            'which has no backbone.stages.0.0.depthwise_conv.P$',
        ),
    ],
)
def test_other_weights_are_refused(plain, release, change, message):
    with pytest.raises(ValueError, match=message):
        from_convnext(change(classifier(plain)), release=release)


@pytest.mark.parametrize('extent', [5, 16])
def test_extents_that_do_not_fit(plain, extent):
    with pytest.raises(ValueError, match='dilated_kernel_size'):
        from_convnext(plain.state_dict(), dilated_kernel_size=extent)


def published_backbone(version, extent=5, count=4):
    """Build a backbone of the published layers, with one P and SIG per stage."""
    layers = pytest.importorskip('DCLS.construct.modules')
    model = build(dict(type='Conv2d', kernel_size=extent))
    for stage in model.stages:
        for block in stage:
            channels = block.norm.normalized_shape[0]
            block.dwconv = layers.Dcls2d(
                channels,
                channels,
                kernel_count=count,
                dilated_kernel_size=extent,
                padding=extent // 2,
                groups=channels,
                version=version,
            )
            torch.nn.init.uniform_(block.dwconv.P, -2, 2)
            block.dwconv.P, block.dwconv.SIG = stage[0].dwconv.P, stage[0].dwconv.SIG
    return model.double()


@pytest.mark.parametrize('version', ['v0', 'v1', 'max', 'gauss'])
def test_published_weights(version):
    theirs = published_backbone(version)
    state_dict = theirs.state_dict()
    converted = from_convnext_dcls(state_dict, version=version)
    cfg = dict(
        type='DCLSConv2d', kernel_count=4, dilated_kernel_size=5, interpolation=version
    )
    ours = build(cfg)
    ours.load_state_dict(converted)
    assert_same_outputs(ours, theirs)
    back = to_convnext_dcls(ours.state_dict(), version=version)
    assert list(back) == list(ours.state_dict())
    assert all(torch.equal(back[key], value) for key, value in state_dict.items())


def test_golden_weights_are_ours_already(shared_file):
    golden = torch.load(shared_file(GOLDEN), weights_only=True)
    source = golden['state_dict']
    converted = from_convnext_dcls(source, version='v0')
    assert list(converted) == list(source)
    assert all(torch.equal(converted[key], value) for key, value in source.items())


@pytest.mark.parametrize('name', ['P', 'SIG'])
def test_blocks_that_do_not_share(name):
    state_dict = published_backbone('gauss').state_dict()
    key = f'stages.1.1.dwconv.{name}'
    state_dict[key] = state_dict[key] + 1
    with pytest.raises(ValueError, match=rf'{key} differs from stages\.1\.0.*{name},'):
        from_convnext_dcls(state_dict, version='gauss')
    apart = from_convnext_dcls(state_dict, version='gauss', sync_positions=False)
    assert torch.equal(apart[key], state_dict[key].flip(0))


def test_wrong_published_weights(plain):
    with pytest.raises(ValueError, match=r'no stages.0.0.dwconv.P.*only downsample'):
        from_convnext_dcls(plain.state_dict(), version='v0')
    state_dict = published_backbone('gauss').state_dict()
    with pytest.raises(ValueError, match="SIG.*version can't be 'v0'"):
        from_convnext_dcls(state_dict, version='v0')
    converted = from_convnext_dcls(state_dict, version='gauss')
    with pytest.raises(ValueError, match='of a layer of dcls_mm already'):
        from_convnext_dcls(converted, version='gauss')
