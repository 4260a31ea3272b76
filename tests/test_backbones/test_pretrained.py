"""Loading weights into the backbone: the forms of files, and what doesn't fit."""

from collections import OrderedDict

import pytest
import torch
from conftest import assert_close
from mmengine.runner import load_checkpoint

import dcls_mm  # noqa: F401
from dcls_mm.apis.trained import read_trained
from dcls_mm.backbones import ConvNeXtDCLS, ReplacedConvBackbone
from dcls_mm.checkpoint import CheckpointError
from dcls_mm.checkpoint.matching import load_matching
from dcls_mm.conversion import to_published

SMALL = dict(depths=[1, 2], dims=[8, 12])


def build(**arguments) -> ConvNeXtDCLS:
    return ConvNeXtDCLS(**{'arch': SMALL, 'out_indices': (0, 1), **arguments})


def build_from(path, prefix=None, **arguments) -> ConvNeXtDCLS:
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    if prefix is not None:
        init_cfg['prefix'] = prefix
    backbone = build(init_cfg=init_cfg, **arguments)
    backbone.init_weights()
    return backbone


@pytest.fixture
def source():
    return build().state_dict()


def classifier(source: dict) -> dict:
    """Return weights in the form of the published classification files."""
    weights = {k: v for k, v in source.items() if not k.startswith('norm')}
    head = {
        'norm.weight': torch.ones(12),
        'norm.bias': torch.zeros(12),
        'head.weight': torch.zeros(5, 12),
        'head.bias': torch.zeros(5),
    }
    return {'model': {**weights, **head}}


def detector(source: dict) -> dict:
    """Return weights in the form of mmengine's checkpoints."""
    weights = {f'backbone.{k}': v for k, v in source.items()}
    return {
        'meta': {'epoch': 3},
        'state_dict': {**weights, 'neck.weight': torch.zeros(3)},
    }


@pytest.mark.parametrize(
    ('form', 'prefix'),
    [(dict, None), (classifier, None), (detector, 'backbone.')],
)
def test_loads_every_form(tmp_path, source, form, prefix):
    torch.save(form(source), tmp_path / 'weights.pth')
    loaded = build_from(tmp_path / 'weights.pth', prefix).state_dict()
    for key, value in source.items():
        assert_close(loaded[key], value)


def test_keys_of_a_head_are_listed(tmp_path, source, monkeypatch):
    from mmengine.logging import MMLogger

    warnings = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text: warnings.append(text))
    torch.save(classifier(source), tmp_path / 'weights.pth')
    build_from(tmp_path / 'weights.pth')
    (text,) = warnings
    assert 'left as they were: norm0.weight, norm0.bias, norm1.weight' in text
    assert 'not used: norm.weight, norm.bias, head.weight, head.bias' in text


def without(source, key):
    return {k: v for k, v in source.items() if k != key}


@pytest.mark.parametrize(
    ('change', 'prefix', 'message'),
    [
        (
            lambda s: without(s, 'stages.0.0.dwconv.P'),
            None,
            'missing: stages.0.0.dwconv.P',
        ),
        (
            lambda s: {**s, 'stages.0.0.se.weight': torch.ones(1)},
            None,
            'not in the model: stages.0.0.se.weight',
        ),
        (
            lambda s: {**s, 'stages.0.0.dwconv.P': torch.zeros(2, 8, 1, 26)},
            None,
            r'another shape: .*P \(2, 8, 1, 26\) for \(2, 8, 1, 34\)',
        ),
        (
            lambda s: {**s, 'stages.1.1.dwconv.P': s['stages.1.1.dwconv.P'] + 1},
            None,
            r'stages\.1\.0\.dwconv\.P and .*sync_positions=False',
        ),
        (detector, None, "prefix='backbone.'"),
        (detector, 'model.', "prefix 'model.'; its keys start with backbone., neck."),
        (lambda s: {'epoch': 3}, None, 'holds no weights, only epoch'),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path, source, change, prefix, message):
    torch.save(change(source), tmp_path / 'weights.pth')
    with pytest.raises(ValueError, match=message) as error:
        build_from(tmp_path / 'weights.pth', prefix)
    assert 'weights.pth' in str(error.value)


def test_unshared_positions_load_where_they_are_not_shared(tmp_path):
    source = build(sync_positions=False).state_dict()
    torch.save(source, tmp_path / 'weights.pth')
    loaded = build_from(tmp_path / 'weights.pth', sync_positions=False).state_dict()
    assert_close(loaded['stages.1.1.dwconv.P'], source['stages.1.1.dwconv.P'])


@pytest.mark.parametrize('as_list', [False, True])
def test_a_second_call_keeps_what_was_trained(tmp_path, source, as_list, monkeypatch):
    """As usual in mmengine, it warns and does nothing."""
    torch.save(source, tmp_path / 'weights.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    backbone = build(init_cfg=[init_cfg] if as_list else init_cfg)
    backbone.init_weights()
    key = 'stages.0.0.norm.weight'
    torch.nn.init.constant_(backbone.stages[0][0].norm.weight, 7.0)
    backbone.init_weights()
    assert backbone.state_dict()[key].unique().tolist() == [7.0]
    assert_close(backbone.norm0.weight, source['norm0.weight'])


def test_a_second_call_of_a_replaced_backbone(tmp_path, source):
    torch.save(source, tmp_path / 'weights.pth')
    cfg = dict(type='DCLSConv2d', kernel_count=34, dilated_kernel_size=17)
    backbone = replaced(depthwise_cfg=cfg, checkpoint=str(tmp_path / 'weights.pth'))
    backbone.init_weights()
    torch.nn.init.constant_(backbone.backbone.norm0.weight, 7.0)
    backbone.init_weights()
    assert backbone.backbone.norm0.weight.unique().tolist() == [7.0]


def test_what_failed_to_load_is_tried_again(tmp_path, source):
    file = tmp_path / 'weights.pth'
    backbone = build(init_cfg=dict(type='Pretrained', checkpoint=str(file)))
    with pytest.raises(FileNotFoundError):
        backbone.init_weights()
    torch.save(source, file)
    backbone.init_weights()
    assert_close(backbone.state_dict()['stages.0.0.dwconv.P'], next(positions(source)))


def positions(state_dict):
    return (value for key, value in state_dict.items() if key.endswith('.P'))


def test_init_cfg_of_several(tmp_path, source):
    """The file is loaded last, wherever it is in the list."""
    torch.save(source, tmp_path / 'weights.pth')
    backbone = build(
        init_cfg=[
            dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')),
            dict(type='Constant', layer='Linear', val=3.0),
        ]
    )
    backbone.init_weights()
    for key, value in backbone.state_dict().items():
        assert_close(value, source[key])


def test_stages_that_are_not_built_are_listed(tmp_path, source, monkeypatch):
    from mmengine.logging import MMLogger

    warnings = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text: warnings.append(text))
    torch.save(source, tmp_path / 'weights.pth')
    backbone = build_from(tmp_path / 'weights.pth', out_indices=0)
    assert len(backbone.stages) == 1
    assert 'not used: downsample_layers.1.0.weight' in warnings[0]
    third = {**source, 'stages.2.0.gamma': torch.ones(1)}
    torch.save(third, tmp_path / 'weights.pth')
    with pytest.raises(ValueError, match=r'which needs downsample_layers\.2'):
        build_from(tmp_path / 'weights.pth', out_indices=0)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing.pth'):
        build_from(tmp_path / 'nothing.pth')


GAUSS = dict(
    type='DCLSConv2d', kernel_count=5, dilated_kernel_size=7, interpolation='gauss'
)


def published_gauss(source) -> OrderedDict:
    return to_published(source.state_dict(), version='gauss', dilated_kernel_size=7)


def backbone_of(state_dict) -> OrderedDict:
    """Return a detector's state_dict, with the metadata that torch keeps for it."""
    prefixed = OrderedDict((f'backbone.{k}', v) for k, v in state_dict.items())
    prefixed._metadata = OrderedDict({'': {'version': 1}})
    for name, notes in state_dict._metadata.items():
        prefixed._metadata[f'backbone.{name}'.rstrip('.')] = notes
    return prefixed


# The forms of a file, with and without the metadata of its state_dict.
FORMS = {
    'model': lambda weights: {'model': weights},
    'weights': lambda weights: weights,
    'detector': lambda weights: {'state_dict': backbone_of(weights)},
    'no metadata': lambda weights: {'model': dict(weights)},
    'detector, no metadata': lambda weights: {'state_dict': dict(backbone_of(weights))},
}


@pytest.mark.parametrize('form', FORMS)
def test_published_gauss_weights(tmp_path, form):
    """Their positions have the columns first: either they are read so, or refused."""
    source = build(depthwise_cfg=GAUSS)
    torch.save(FORMS[form](published_gauss(source)), tmp_path / 'weights.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    if 'detector' in form:
        init_cfg['prefix'] = 'backbone.'
    loaded = build(depthwise_cfg=GAUSS, init_cfg={**init_cfg, 'version': 'gauss'})
    loaded.init_weights()
    x = torch.randn(1, 3, 32, 32)
    assert all(torch.equal(y, own) for y, own in zip(loaded(x), source(x)))
    with pytest.raises(
        ValueError, match=r"weights.pth: stages.0.0.dwconv.P: .*version='gauss'"
    ):
        build(depthwise_cfg=GAUSS, init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize('form', FORMS)
def test_own_gauss_weights(tmp_path, form):
    """They note their order; without the notes, the config can state it."""
    source = build(depthwise_cfg=GAUSS)
    torch.save(FORMS[form](source.state_dict()), tmp_path / 'weights.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    if 'detector' in form:
        init_cfg['prefix'] = 'backbone.'
    cfg = GAUSS
    if 'no metadata' in form:
        with pytest.raises(ValueError, match=r'build .* with position_axes=\(0, 1\)'):
            build(depthwise_cfg=GAUSS, init_cfg=init_cfg).init_weights()
        cfg = dict(GAUSS, position_axes=(0, 1))
    else:
        with pytest.raises(ValueError, match='is of a layer of dcls_mm already'):
            build(
                depthwise_cfg=cfg, init_cfg={**init_cfg, 'version': 'gauss'}
            ).init_weights()
    loaded = build(depthwise_cfg=cfg, init_cfg=init_cfg)
    loaded.init_weights()
    x = torch.randn(1, 3, 32, 32)
    assert all(torch.equal(y, own) for y, own in zip(loaded(x), source(x)))


def replaced(depthwise_cfg=GAUSS, **init_cfg) -> ReplacedConvBackbone:
    """Wrap such a backbone in another, as a config builds it."""
    inner = dict(
        type='ConvNeXtDCLS',
        arch=SMALL,
        out_indices=(0, 1),
        depthwise_cfg=depthwise_cfg,
        init_cfg=dict(type='Pretrained', **init_cfg),
    )
    layer = dict(type='DCLSConv2d', dilated_kernel_size=4)
    return ReplacedConvBackbone(inner, layer, name='downsample_layers.1')


def load_by_mmengine(path):
    return load_checkpoint(build(depthwise_cfg=GAUSS), path)


def load_by_tools(path):
    return load_matching(build(depthwise_cfg=GAUSS), read_trained(path), path)


@pytest.mark.parametrize('form', ['weights', 'no metadata'])
@pytest.mark.parametrize(
    ('load', 'error'),
    [
        (load_by_mmengine, RuntimeError),
        (load_by_tools, CheckpointError),
        (lambda path: replaced(checkpoint=path).init_weights(), ValueError),
    ],
)
def test_every_way_refuses_published_gauss_weights(tmp_path, load, error, form):
    """mmengine only logs errors that a layer lists, so the layers raise theirs."""
    source = build(depthwise_cfg=GAUSS)
    weights = FORMS[form](published_gauss(source))
    if form == 'no metadata':
        weights = weights['model']
    torch.save(weights, tmp_path / 'weights.pth')
    with pytest.raises(error, match=r'stages\.0\.0\.dwconv\.P.*from_published'):
        load(str(tmp_path / 'weights.pth'))


def test_another_extent_only_on_purpose(tmp_path):
    """Positions count from the centre, so they stay the same in a larger kernel."""
    cfg = dict(type='DCLSConv2d', kernel_count=5, dilated_kernel_size=7)
    source = build(depthwise_cfg=cfg)
    torch.save(source.state_dict(), tmp_path / 'weights.pth')
    larger = dict(cfg, dilated_kernel_size=11)
    message = r'extent \(7, 7\), this one has \(11, 11\).*any_extent=True'
    with pytest.raises(ValueError, match=message):
        build_from(tmp_path / 'weights.pth', depthwise_cfg=larger)
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    loaded = build(depthwise_cfg=larger, init_cfg=dict(init_cfg, any_extent=True))
    loaded.init_weights()
    x = torch.randn(1, 3, 32, 32)
    for output, expected in zip(loaded(x), source(x)):
        assert_close(output, expected, factor=5)


@pytest.mark.parametrize('interpolation', ['bilinear', 'gauss'])
@pytest.mark.parametrize('count', [49, 81])
def test_the_error_of_a_start_from_plain_kernels_is_logged_once(
    tmp_path, monkeypatch, recwarn, interpolation, count
):
    from mmengine.logging import MMLogger

    said = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text: said.append(text))
    plain = build(depthwise_cfg=dict(type='Conv2d', kernel_size=7))
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    learned = dict(
        type='DCLSConv2d',
        kernel_count=count,
        dilated_kernel_size=17,
        interpolation=interpolation,
    )
    backbone = build_from(tmp_path / 'plain.pth', depthwise_cfg=learned)
    errors = [block.dwconv.kernel_error for stage in backbone.stages for block in stage]
    wanted = [f'relative error of up to {max(errors):.2g}'] if any(errors) else []
    assert bool(wanted) == (interpolation == 'gauss')
    assert len(said) == len(wanted) and all(w in t for w, t in zip(wanted, said))
    assert not [w for w in recwarn if 'relative error' in str(w.message)]
