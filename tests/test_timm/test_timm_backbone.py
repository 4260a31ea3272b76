"""Networks of timm as backbones of mmdet's and mmseg's configs."""

import copy

import pytest
import torch
from conftest import assert_close
from mmengine.registry import MODELS

from dcls_mm.checkpoint import ContentError

from .published import BUILDS, original_state_dict, published_network

pytestmark = pytest.mark.timm

NETWORK = 'caformer_dcls_s18'


def build(name=NETWORK, file=None, prefix=None, **options):
    init_cfg = None
    if file is not None:
        init_cfg = dict(type='Pretrained', checkpoint=str(file))
        if prefix is not None:
            init_cfg['prefix'] = prefix
    cfg = dict(type='TimmBackbone', model_name=name, init_cfg=init_cfg, **options)
    backbone = MODELS.build(cfg)
    backbone.init_weights()
    return backbone.eval()


@pytest.fixture
def save(tmp_path):
    def write(state_dict, key='state_dict_ema'):
        path = tmp_path / 'file.pth'
        torch.save({'epoch': 3, key: state_dict}, path)
        return path

    return write


def features(model, images):
    with torch.no_grad():
        return model.forward_intermediates(images, intermediates_only=True)


@pytest.mark.parametrize('name', BUILDS)
def test_published_file_gives_published_features(name, save):
    published = published_network(name)
    family = {'conv': 'convnext', 'fast': 'fastvit'}.get(name[:4])
    if 'former' in name:
        family = 'metaformer'
    weights = published.state_dict()
    if family:
        weights = original_state_dict(weights, family)
    images = torch.randn(1, 3, 64, 64)
    expected = features(published, images)
    indices = tuple(range(len(expected)))
    backbone = build(name, save(weights), out_indices=indices)
    with torch.no_grad():
        for ours, theirs in zip(backbone(images), expected, strict=True):
            assert_close(ours, theirs, factor=20)
            assert ours.is_contiguous()


@pytest.mark.parametrize('name', ['convformer_s18', 'fastvit_t8', 'convnext_atto'])
def test_plain_network_takes_the_original_names(name, save):
    import timm

    plain = timm.create_model(name).eval()
    family = {'conv': 'convnext', 'fast': 'fastvit'}[name[:4]]
    family = 'metaformer' if 'former' in name else family
    weights = plain.state_dict()
    if family != 'fastvit':  # T8 numbers its stages otherwise than the SA networks
        weights = original_state_dict(weights, family)
    images = torch.randn(1, 3, 64, 64)
    backbone = build(name, save(weights))
    with torch.no_grad():
        for ours, theirs in zip(backbone(images), features(plain, images)):
            assert_close(ours, theirs)


def test_every_parameter_gets_a_gradient():
    backbone = build(drop_path_rate=0.0, out_indices=(0, 2)).train()
    sum(x.sum() for x in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in backbone.parameters())
    assert not any('head' in key or 'stages.3' in key for key in backbone.state_dict())


def test_negative_indices_count_from_the_last_feature():
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        shapes = [x.shape[1] for x in build(out_indices=(0, -2))(images)]
    assert shapes == [64, 320]


def test_a_detectors_file_needs_its_prefix(save):
    backbone = build()
    weights = {f'backbone.{k}': v + 1 for k, v in backbone.state_dict().items()}
    weights['neck.weight'] = torch.ones(2)
    path = save(weights, 'state_dict')
    with pytest.raises(
        ContentError, match=r'not of caformer_dcls_s18: it has backbone'
    ):
        build(file=path)
    loaded = build(file=path, prefix='backbone.timm_model.')
    assert torch.equal(
        loaded.timm_model.stem.conv.bias, backbone.timm_model.stem.conv.bias + 1
    )


WEIGHTS = {
    'a key is missing': (
        lambda w: w.pop('stages.0.blocks.0.token_mixer.dwconv.P'),
        r'does not fit caformer_dcls_s18; missing: stages.0.blocks.0.token_mixer.dwcon',
    ),
    'a key is left over': (
        lambda w: w.update({'stages.0.blocks.0.extra': torch.ones(64)}),
        r'does not fit caformer_dcls_s18; not in the model: stages.0.blocks.0.extra',
    ),
    'a shape differs': (
        lambda w: w.update({'stem.conv.bias': torch.ones(3)}),
        r'its shapes differ, stem.conv.bias \(3,\) instead of \(64,\)',
    ),
    'another extent': (
        lambda w: w._metadata['stages.0.blocks.0.token_mixer.dwconv'].update(
            extent=(9, 9)
        ),
        r'the state_dict is of a layer of extent \(9, 9\), this one has \(17, 17\)',
    ),
}


@pytest.mark.parametrize('fault', WEIGHTS)
def test_what_does_not_fit_is_named(fault, save):
    import timm

    spoil, message = WEIGHTS[fault]
    weights = timm.create_model(NETWORK).state_dict()
    spoil(weights)
    with pytest.raises(ContentError, match=message):
        build(file=save(weights))


def test_plain_weights_are_refused_by_dcls(save):
    import timm

    weights = timm.create_model('caformer_s18').state_dict()
    with pytest.raises(ContentError, match='token_mixer.dwconv'):
        build(file=save(weights))


@pytest.mark.parametrize('head', [1000, 7])
def test_head_of_any_size_is_left_out(head, save):
    import timm

    path = save(timm.create_model(NETWORK, num_classes=head).state_dict())
    assert not any('head' in key for key in build(file=path).state_dict())


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (dict(name='convformer'), ValueError, 'model_name must be a name in timm.list'),
        (dict(name=None), ValueError, 'model_name must be a name in timm.list'),
        (dict(pretrained=True), ValueError, 'pretrained must be left out of TimmBack'),
        (dict(out_indices=(0, 9)), ValueError, 'out_indices must be .*got .0, 9.'),
        (dict(out_indices=2), ValueError, 'out_indices must be .*got 2'),
        (dict(position_rate=5), ValueError, 'paramwise_cfg.position_lr_mult'),
        (
            dict(num_classes=3),
            ValueError,
            'num_classes must be left out of TimmBackbon',
        ),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        build(**arguments)


def test_positions_learn_as_the_config_says():
    """The networks' own treatment of positions is for timm's scripts."""
    backbone = build(drop_path_rate=0.0).train()
    expected = copy.deepcopy(backbone)
    images = torch.randn(2, 3, 64, 64)
    for model in (backbone, expected):
        sum(x.square().sum() for x in model(images)).backward()
    torch.optim.SGD(backbone.parameters(), lr=1e-3).step()
    key = 'timm_model.stages.0.blocks.0.token_mixer.dwconv.P'
    positions = expected.get_parameter(key)
    moved = positions.detach() - 1e-3 * positions.grad
    assert not torch.equal(moved, positions)
    torch.testing.assert_close(backbone.get_parameter(key).detach(), moved)


def test_folded_backbone_computes_the_same():
    backbone = build()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = backbone(images)
        backbone.switch_to_deploy()
        assert not any(key.endswith('.P') for key in backbone.state_dict())
        for ours, theirs in zip(backbone(images), expected):
            assert_close(ours, theirs, factor=5)


@pytest.mark.parametrize('count', [49, 81])
@pytest.mark.parametrize('name', ['convnext_atto', 'caformer_s18'])
def test_a_plain_network_with_its_convolutions_replaced(name, count):
    plain = build(name, out_indices=(0, 1))
    replaced = MODELS.build(
        dict(
            type='ReplacedConvBackbone',
            backbone=dict(type='TimmBackbone', model_name=name, out_indices=(0, 1)),
            layer=dict(type='DCLSConv2d', kernel_count=count, dilated_kernel_size=17),
            depthwise=True,
        )
    ).eval()
    replaced.backbone.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for actual, expected in zip(replaced(x), plain(x)):
            assert_close(actual, expected, factor=50)
