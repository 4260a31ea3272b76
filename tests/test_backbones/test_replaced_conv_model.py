"""Whole detectors and segmentors with convolutions replaced, as a config names them."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from conftest import assert_close
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import save_checkpoint
from mmengine.runner.checkpoint import load_checkpoint
from small_data import detector, segmentor, write_coco
from torch import nn

from dcls_mm.apis import test, train
from dcls_mm.checkpoint import read_checkpoint
from dcls_mm.layers import DCLSConv2d

DCLS = dict(type='DCLSConv2d', dilated_kernel_size=7)
IN_NECK_AND_HEAD = [
    dict(layer=DCLS, name=r'neck\.fpn_convs', kernel_size=3),
    dict(
        layer=dict(DCLS, interpolation='gauss', initial_sigma=0.0),
        name=r'bbox_head\.cls_convs',
        share_positions='cls',
    ),
]


def swapped_config(config, replace):
    """Return a model's config with replaced convolutions, as a child config sets it."""
    model = copy.deepcopy(config['model'])
    return dict(
        model, type='ReplacedConvModel', model_type=model['type'], replace=replace
    )


def randomized(model):
    """Give every parameter and statistic of a model random values; return the model."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.running_mean.normal_(generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def outputs(model):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(1, 3, 64, 96, generator=generator)
    with torch.no_grad():
        return [y for part in model.eval()(images, mode='tensor') for y in part]


def rtmdet():
    """Return mmdet's RTMDet, narrowed; its backbone and neck convolve depthwise 5x5."""
    config = Config.fromfile(
        Path(__file__).resolve().parents[2]
        / 'configs/rtmdet/rtmdet_tiny-swapped-dcls_8xb32-36e_coco.py'
    )
    model = config.model.to_dict()
    model['backbone'].update(widen_factor=0.125, norm_cfg=dict(type='BN'))
    model['neck'].update(
        in_channels=[32, 64, 128], out_channels=16, norm_cfg=dict(type='BN')
    )
    model['bbox_head'].update(
        in_channels=16, feat_channels=16, num_classes=3, norm_cfg=dict(type='BN')
    )
    return model


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


@pytest.mark.parametrize('how', ['load_from', 'Pretrained'])
def test_it_starts_from_the_checkpoint_of_the_plain_detector(how, tmp_path):
    swapped = rtmdet()
    plain = {k: v for k, v in swapped.items() if k not in ('type', 'replace')}
    source = randomized(MODELS.build(dict(plain, type=plain.pop('model_type'))))
    file = str(tmp_path / 'plain.pth')
    save_checkpoint(dict(state_dict=source.state_dict()), file)
    if how == 'Pretrained':
        swapped['init_cfg'] = dict(type='Pretrained', checkpoint=file)
    model = MODELS.build(swapped)
    assert type(model) is type(source)
    held = list(model.parameters())
    layers = [n for n, m in model.named_modules() if isinstance(m, DCLSConv2d)]
    assert {name.split('.')[0] for name in layers} == {'backbone', 'neck'}
    assert not any(
        isinstance(m, nn.Conv2d) and m.kernel_size == (5, 5) for m in model.modules()
    )
    if how == 'Pretrained':
        model.init_weights()
    else:
        load_checkpoint(model, file, strict=True)
    assert all(new is old for new, old in zip(model.parameters(), held))
    for actual, expected in zip(outputs(model), outputs(source)):
        assert_close(actual, expected, factor=50)


def test_init_weights_is_that_of_the_plain_model():
    config = detector()
    swapped = MODELS.build(swapped_config(config, IN_NECK_AND_HEAD[0]))
    torch.manual_seed(0)
    swapped.init_weights()
    torch.manual_seed(0)
    plain = MODELS.build(config['model'])
    plain.init_weights()
    for actual, expected in zip(outputs(swapped), outputs(plain)):
        assert_close(actual, expected, factor=50)
    before = swapped.state_dict()
    swapped.init_weights()  # as mmengine does, it only warns
    torch.testing.assert_close(swapped.state_dict(), before, rtol=0, atol=0)


def test_a_copy_has_its_own_weights():
    model = MODELS.build(swapped_config(detector(), IN_NECK_AND_HEAD))
    first = copy.deepcopy(model)
    first.init_weights()
    assert first.is_init and not model.is_init
    again = pickle.loads(pickle.dumps(first))
    for actual, expected in zip(outputs(again), outputs(first)):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_positions_are_shared_in_the_head():
    config = detector()
    config['model']['bbox_head']['stacked_convs'] = 2
    head = MODELS.build(swapped_config(config, IN_NECK_AND_HEAD)).bbox_head
    first, second = (module.conv for module in head.cls_convs)
    assert first.P is second.P and first.weight is not second.weight
    assert isinstance(head.reg_convs[0].conv, nn.Conv2d)


def test_a_segmentor():
    init_default_scope('mmseg')
    config = segmentor()
    replace = dict(layer=DCLS, name='decode_head', kernel_size=3)
    model = MODELS.build(swapped_config(config, replace))
    source = randomized(MODELS.build(config['model']))
    model.load_state_dict(source.state_dict())
    assert type(model).__name__ == 'EncoderDecoder'
    for actual, expected in zip(outputs(model), outputs(source)):
        assert_close(actual, expected, factor=50)


def test_a_segmentor_with_pretrained_beside_its_backbone(tmp_path):
    """As in mmseg's own configs; its models write that into the backbone's config."""
    init_default_scope('mmseg')
    config = segmentor()
    source = randomized(MODELS.build(copy.deepcopy(config['model'])))
    file = str(tmp_path / 'backbone.pth')
    save_checkpoint(dict(state_dict=source.backbone.state_dict()), file)
    swapped = swapped_config(config, dict(layer=DCLS, name='backbone', kernel_size=3))
    model = MODELS.build(ConfigDict(swapped, pretrained=file))
    model.init_weights()
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model.eval().backbone(images)
        wanted = source.eval().backbone(images)
    for actual, expected in zip(found, wanted):
        assert_close(actual, expected, factor=50)


def test_a_fresh_start_keeps_what_it_has(tmp_path):
    config = detector()
    source = randomized(MODELS.build(config['model']))
    file = str(tmp_path / 'plain.pth')
    save_checkpoint(dict(state_dict=source.state_dict()), file)
    replace = dict(IN_NECK_AND_HEAD[0], start='fresh')
    model = MODELS.build(swapped_config(config, replace))
    fresh = model.neck.fpn_convs[0].conv
    before = copy.deepcopy(fresh.state_dict())
    load_checkpoint(model, file)
    for key in ('weight', 'P'):
        torch.testing.assert_close(fresh.state_dict()[key], before[key])
    torch.testing.assert_close(
        model.neck.lateral_convs[0].conv.weight,
        source.neck.lateral_convs[0].conv.weight,
    )


def write(name, config):
    items = config.items()
    Path(name).write_text(''.join(f'{key} = {value!r}\n' for key, value in items))
    return name


def test_train_resume_and_test(tmp_path, monkeypatch):
    """Train from a plain checkpoint with averaged weights, resume, and test."""
    monkeypatch.chdir(tmp_path)
    write_coco()
    settings = dict(
        custom_imports=dict(imports=['dcls_mm'], allow_failed_imports=False),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1e-3),
            constructor='DCLSOptimizerConstructor',
            paramwise_cfg=dict(position_lr_mult=5.0),
        ),
        default_hooks=dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1)),
        custom_hooks=[
            dict(type='EMAHook', ema_type='ExpMomentumEMA', update_buffers=True),
            dict(type='ClampPositionsHook'),
        ],
    )
    plain = detector(**settings)
    source = randomized(MODELS.build(plain['model']))
    save_checkpoint(dict(state_dict=source.state_dict()), 'plain.pth')
    swapped = dict(plain, model=swapped_config(plain, IN_NECK_AND_HEAD))
    config = write('swapped.py', dict(swapped, load_from='plain.pth'))

    # Before training it detects what the plain detector does.
    found = [
        inference_detector(
            init_detector(name, 'plain.pth', device='cpu'), 'data/images/0.png'
        ).pred_instances
        for name in (config, write('plain.py', plain))
    ]
    assert len(found[0]) == len(found[1]) > 0
    for key, atol in (('scores', 1e-3), ('bboxes', 0.1)):  # one layer is 'gauss'
        torch.testing.assert_close(*(f[key] for f in found), rtol=0, atol=atol)

    train.train(config=config, work_dir='whole')
    end = read_checkpoint('whole/epoch_2.pth')
    layer = 'neck.fpn_convs.0.conv.'
    moved = end['state_dict'][f'{layer}P']
    assert (moved != moved.round()).any() and moved.abs().max() <= 3
    learned = end['state_dict'][f'{layer}weight'].flatten(2)
    given = source.state_dict()[f'{layer}weight'].flatten(2)
    assert 0 < (learned - given).abs().max() < 0.1  # it went on from these
    averaged = end['ema_state_dict'][f'module.{layer}P']
    assert (averaged != moved).any()

    train.train(
        config=config, work_dir='parts', cfg_options={'train_cfg.max_epochs': 1}
    )
    train.train(config=config, work_dir='parts', resume='auto')
    resumed = read_checkpoint('parts/epoch_2.pth')
    assert resumed['state_dict'].keys() == end['state_dict'].keys()
    assert resumed['message_hub']['log_scalars'] is not None
    test.test(config=config, checkpoint='parts/epoch_2.pth', work_dir='after')
    (metrics,) = Path('after').glob('*/*.json')
    assert 0 <= json.loads(metrics.read_text())['coco/bbox_mAP'] <= 1


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        (dict(model_type=None), TypeError, "model_type must be .* such as 'RTMDet'"),
        (dict(model_type='RetinaNets'), KeyError, 'RetinaNets is not in the'),
        (dict(replace=[]), ValueError, 'at least one replacement'),
        (dict(replace='neck'), TypeError, "replace must be a config.* got 'neck'"),
        (dict(replace={}), TypeError, 'layer must be a config'),
        (
            dict(replace=dict(layer=DCLS, names='neck')),
            ValueError,
            r"unknown keys \['names'\]; it takes \['layer', 'name'",
        ),
        (dict(replace=dict(layer=dict(type='Nothing'))), ValueError, "'Nothing'"),
        (dict(replace=dict(layer=dict(DCLS, stride=2))), ValueError, "out .'stride'"),
        (
            dict(replace=dict(layer=DCLS, kernel_size=9)),
            ValueError,
            'kernel_size=9, depthwise=None match none',
        ),
    ],
)
def test_bad_configs(changes, error, message):
    config = swapped_config(detector(), IN_NECK_AND_HEAD)
    with pytest.raises(error, match=message):
        MODELS.build(dict(config, **changes))
