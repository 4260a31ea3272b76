"""Loading weights into the backbone: the forms of files, and what doesn't fit."""

import pytest
import torch
from conftest import assert_close

import dcls_mm  # noqa: F401
from dcls_mm.backbones import ConvNeXtDCLS
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
    """The form of the published classification files."""
    weights = {k: v for k, v in source.items() if not k.startswith('norm')}
    head = {
        'norm.weight': torch.ones(12),
        'norm.bias': torch.zeros(12),
        'head.weight': torch.zeros(5, 12),
        'head.bias': torch.zeros(5),
    }
    return {'model': {**weights, **head}}


def detector(source: dict) -> dict:
    """The form of mmengine's checkpoints."""
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


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing.pth'):
        build_from(tmp_path / 'nothing.pth')


def test_published_gauss_weights(tmp_path):
    """Their positions have the columns first: 'version' tells."""
    gauss = dict(
        type='DCLSConv2d',
        kernel_count=5,
        dilated_kernel_size=7,
        interpolation='gauss',
    )
    source = build(depthwise_cfg=gauss)
    published = to_published(
        source.state_dict(), version='gauss', dilated_kernel_size=7
    )
    torch.save({'model': dict(published)}, tmp_path / 'weights.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    x = torch.randn(1, 3, 32, 32)
    for version, same in (('gauss', True), (None, False)):
        loaded = build(depthwise_cfg=gauss, init_cfg={**init_cfg, 'version': version})
        loaded.init_weights()
        equal = [torch.equal(y, own) for y, own in zip(loaded(x), source(x))]
        assert all(equal) is same
