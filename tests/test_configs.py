"""Every config parses, follows the conventions, and builds its model.

The two published recipes are checked value by value. One detector and one segmentor
make a training step and a prediction.
"""

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.structures import PixelData

REPO = Path(__file__).parents[1]
CONFIG_ROOT = REPO / 'configs'
DATA_ROOT = REPO.parent / 'shared' / 'data'

ROTATED = ('oriented_rcnn', 'rotated_rtmdet')
CONFIGS = sorted(
    str(path.relative_to(CONFIG_ROOT)) for path in CONFIG_ROOT.glob('[!_]*/*.py')
)
# Networks of timm, which only the stack of that name has.
OVER_TIMM = [name for name in CONFIGS if re.search(r'(conv|ca)former-', name)]
# Only the forks' stack has mmrotate.
OVER_MMROTATE = [name for name in CONFIGS if name.split('/')[0] in ROTATED]
needs_mmrotate = pytest.mark.skipif(
    find_spec('mmrotate') is None,
    reason='needs mmrotate, which `make test STACK=onedl` has',
)
READ = [
    pytest.param(name, marks=needs_mmrotate) if name in OVER_MMROTATE else name
    for name in CONFIGS
]
BUILT = [
    pytest.param(name, marks=pytest.mark.timm) if name in OVER_TIMM else name
    for name in READ
]
COCO_TINY = (
    'cascade_mask_rcnn/'
    'cascade-mask-rcnn_convnext-dcls-t_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
)
ADE_TINY = 'upernet/convnext-dcls-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'
NUCLEI = 'cascade_mask_rcnn/cascade-mask-rcnn_convnext-dcls-atto_fpn_1xb4-15e_nuclei.py'
ADE_MASK2FORMER = [
    f'mask2former/convnext-dcls-{size}_mask2former_8xb2-amp-160k_ade20k-512x512.py'
    for size in ('tiny', 'small')
]
CAMVID = 'upernet/convnext-dcls-atto_upernet_1xb4-1k_camvid-256x256.py'

WEIGHTS = 'https://zenodo.org/record/7112021/files/convnext_dcls_tiny_1k_224_ema.pth'

# Values in the published training configs: 'key.subkey' -> value.
RECIPES = {
    COCO_TINY: {
        'model.backbone.arch': 'tiny',
        'model.backbone.drop_path_rate': 0.4,
        'model.backbone.layer_scale_init_value': 1.0,
        'model.backbone.init_cfg.checkpoint': WEIGHTS,
        'model.backbone.depthwise_cfg.kernel_count': 34,
        'model.backbone.depthwise_cfg.dilated_kernel_size': 17,
        'model.backbone.depthwise_cfg.interpolation': 'bilinear',
        'model.neck.out_channels': 256,
        'optim_wrapper.type': 'AmpOptimWrapper',
        'optim_wrapper.optimizer.type': 'AdamW',
        'optim_wrapper.optimizer.lr': 2e-4,
        'optim_wrapper.optimizer.betas': (0.9, 0.999),
        'optim_wrapper.optimizer.weight_decay': 0.05,
        'optim_wrapper.paramwise_cfg.decay_rate': 0.7,
        'optim_wrapper.paramwise_cfg.decay_type': 'layer_wise',
        'optim_wrapper.paramwise_cfg.num_layers': 6,
        'train_cfg.max_epochs': 36,
        'auto_scale_lr.base_batch_size': 16,
        'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.data_root': 'data/coco/',
        'test_evaluator.ann_file': 'data/coco/annotations/instances_val2017.json',
    },
    ADE_TINY: {
        'model.backbone.arch': 'tiny',
        'model.backbone.drop_path_rate': 0.4,
        'model.backbone.init_cfg.checkpoint': WEIGHTS,
        'model.backbone.depthwise_cfg.kernel_count': 34,
        'model.backbone.depthwise_cfg.dilated_kernel_size': 17,
        'model.backbone.depthwise_cfg.interpolation': 'bilinear',
        'model.decode_head.channels': 512,
        'model.decode_head.num_classes': 150,
        'model.auxiliary_head.num_classes': 150,
        'model.auxiliary_head.loss_decode.loss_weight': 0.4,
        'model.data_preprocessor.size': (512, 512),
        'model.test_cfg.mode': 'slide',
        'model.test_cfg.crop_size': (512, 512),
        'model.test_cfg.stride': (341, 341),
        'optim_wrapper.type': 'AmpOptimWrapper',
        'optim_wrapper.optimizer.type': 'AdamW',
        'optim_wrapper.optimizer.lr': 1e-4,
        'optim_wrapper.optimizer.betas': (0.9, 0.999),
        'optim_wrapper.optimizer.weight_decay': 0.05,
        'optim_wrapper.paramwise_cfg.decay_rate': 0.9,
        'optim_wrapper.paramwise_cfg.decay_type': 'stage_wise',
        'optim_wrapper.paramwise_cfg.num_layers': 6,
        'train_cfg.max_iters': 160000,
        'auto_scale_lr.base_batch_size': 16,
        'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.data_root': 'data/ade/ADEChallengeData2016',
    },
}

# Learning rates relative to the base rate, from the published constructors: decay **
# (num_layers + 1 - layer id).
LR_SHARES = {
    COCO_TINY: {
        'backbone.downsample_layers.0.0.weight': 0.7**7,
        'backbone.stages.0.2.pwconv1.weight': 0.7**6,
        'backbone.downsample_layers.1.1.weight': 0.7**5,
        'backbone.stages.1.0.dwconv.weight': 0.7**5,
        'backbone.stages.2.0.dwconv.P': 0.7**4,
        'backbone.stages.2.4.dwconv.weight': 0.7**3,
        'backbone.stages.2.8.dwconv.weight': 0.7**2,
        'backbone.downsample_layers.3.1.weight': 0.7,
        'backbone.stages.3.1.gamma': 0.7,
        'backbone.norm3.weight': 1.0,
        'roi_head.mask_head.2.conv_logits.weight': 1.0,
    },
    ADE_TINY: {
        'backbone.downsample_layers.0.0.weight': 0.9**7,
        'backbone.downsample_layers.3.1.weight': 0.9**7,
        'backbone.stages.0.2.pwconv1.weight': 0.9**6,
        'backbone.stages.2.0.dwconv.P': 0.9**4,
        'backbone.stages.2.8.dwconv.weight': 0.9**4,
        'backbone.stages.3.1.gamma': 0.9**3,
        'decode_head.conv_seg.weight': 1.0,
    },
}


def load(name):
    cfg = Config.fromfile(CONFIG_ROOT / name)
    init_default_scope(cfg.default_scope)
    return cfg


def build_model(cfg):
    """Build the model without downloading weights, with single-process norm layers."""
    cfg.model.backbone.init_cfg = None
    return revert_sync_batchnorm(MODELS.build(cfg.model))


def build_optimizer(cfg, model):
    """Build the config's optimizer without AMP, which needs a GPU."""
    return build_optim_wrapper(model, dict(cfg.optim_wrapper, type='OptimWrapper'))


def lookup(cfg, dotted):
    for key in dotted.split('.'):
        cfg = cfg[key]
    return cfg


@pytest.fixture(scope='module', params=[COCO_TINY, ADE_TINY], ids=['coco', 'ade'])
def published(request):
    cfg = load(request.param)
    return request.param, cfg, build_model(cfg)


@pytest.mark.parametrize('name', READ)
def test_config_follows_the_habits(name):
    cfg = load(name)
    # mmseg's Mask2Former is made of mmdet's parts.
    others = ['mmdet.models'] * (name in ADE_MASK2FORMER)
    assert cfg.custom_imports == dict(
        imports=['dcls_mm', *others], allow_failed_imports=False
    )
    assert cfg.default_scope in ('mmdet', 'mmrotate', 'mmseg')
    assert cfg.default_hooks.checkpoint.max_keep_ckpts >= 1
    for key in ('train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'test_evaluator'):
        assert key in cfg, key
    # Fields of lower-case words and numbers: method, backbone, schedule, data.
    folder, stem = Path(name).parent.name, Path(name).stem
    assert re.fullmatch(r'[a-z0-9-]+(_[a-z0-9-]+){2,}', stem)
    assert folder.replace('_', '-') in stem
    assert re.search('dcls|convnext|former', stem)


@pytest.mark.parametrize('name', [n for n in BUILT if n not in (COCO_TINY, ADE_TINY)])
def test_model_builds(name):
    with torch.device('meta'):  # shapes only: the largest have 400 million parameters
        model = build_model(load(name))
        features = model.backbone(torch.rand(1, 3, 64, 64))
    sizes = [16, 8, 8, 8] if '-d8' in name else [16, 8, 4, 2]
    if re.search('retinanet|rtmdet|dino', name):  # their necks take the last three
        sizes = sizes[1:]
    assert [feature.shape[-1] for feature in features] == sizes


def test_published_models_have_the_published_size(published):
    name, _, model = published
    millions = {COCO_TINY: 86, ADE_TINY: 60}[name]
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions


@pytest.mark.parametrize('name', RECIPES, ids=['coco', 'ade'])
def test_published_figures(name):
    cfg = load(name)
    assert {key: lookup(cfg, key) for key in RECIPES[name]} == RECIPES[name]


def test_coco_schedule_and_heads():
    cfg = load(COCO_TINY)
    assert cfg.param_scheduler[1].milestones == [27, 33]
    assert cfg.param_scheduler[1].end == cfg.train_cfg.max_epochs
    for head in cfg.model.roi_head.bbox_head:
        assert (head.num_shared_convs, head.num_shared_fcs) == (4, 1)
        assert head.norm_cfg.type == 'SyncBN'
        assert head.loss_bbox == dict(type='GIoULoss', loss_weight=10.0)
        assert head.reg_decoded_bbox and not head.reg_class_agnostic
    stds = [head.bbox_coder.target_stds[0] for head in cfg.model.roi_head.bbox_head]
    assert stds == [0.1, 0.05, 0.033]


def test_coco_augmentation():
    cfg = load(COCO_TINY)
    pipeline = cfg.train_dataloader.dataset.pipeline
    (multi_scale,), (first, crop, last) = pipeline[3].transforms
    shorts = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
    assert multi_scale.scales == last.scales == [(short, 1333) for short in shorts]
    assert first.scales == [(400, 1333), (500, 1333), (600, 1333)]
    assert crop.crop_size == (384, 600)
    assert crop.crop_type == 'absolute_range'


def test_ade_schedule_and_pipeline():
    cfg = load(ADE_TINY)
    warmup, poly = cfg.param_scheduler
    assert (warmup.start_factor, warmup.end) == (1e-6, 1500)
    assert (poly.power, poly.eta_min, poly.end) == (1.0, 0.0, 160000)
    pipeline = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert pipeline['RandomCrop'].crop_size == (512, 512)
    assert pipeline['RandomResize'].scale == (2048, 512)
    assert pipeline['LoadAnnotations'].reduce_zero_label


def test_published_learning_rates(published):
    name, cfg, model = published
    optimizer = build_optimizer(cfg, model).optimizer
    base_lr = cfg.optim_wrapper.optimizer.lr
    rates = {id(p): g['lr'] for g in optimizer.param_groups for p in g['params']}
    parameters = dict(model.named_parameters())
    shares = {key: rates[id(parameters[key])] / base_lr for key in LR_SHARES[name]}
    assert shares == pytest.approx(LR_SHARES[name])
    # The blocks of a stage share positions, which are listed once, under the first
    # block.
    positions = [key for key in parameters if key.endswith('.P')]
    assert positions == [f'backbone.stages.{i}.0.dwconv.P' for i in range(4)]


@pytest.mark.parametrize('name', [NUCLEI, CAMVID])
def test_positions_learn_as_documented(name):
    cfg = load(name)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model).optimizer
    owner = {id(p): g for g in optimizer.param_groups for p in g['params']}
    base = cfg.optim_wrapper.optimizer
    for key, parameter in model.named_parameters():
        group = owner[id(parameter)]
        assert group['lr'] == base.lr * (5 if key.endswith('.P') else 1), key
        if key.endswith('.P'):
            assert group['weight_decay'] == 0


def detection_batch(rng):
    """Return two 64x64 images, each with a bright square, packed as a dataset does."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    batch = dict(inputs=[], data_samples=[])
    for index in range(2):
        image = rng.integers(0, 50, (3, 64, 64), dtype=np.uint8)
        mask = np.zeros((1, 64, 64), np.uint8)
        mask[0, 20:40, 16 : 40 + index] = 1
        image[:, mask[0] == 1] = 220
        sample = DetDataSample(
            metainfo=dict(
                img_id=index,
                img_shape=(64, 64),
                ori_shape=(64, 64),
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[16.0, 20.0, 40.0 + index, 40.0]]),
            labels=torch.tensor([0]),
            masks=BitmapMasks(mask, 64, 64),
        )
        batch['inputs'].append(torch.from_numpy(image))
        batch['data_samples'].append(sample)
    return batch


def segmentation_batch(rng):
    """Return two 64x64 images with class 1 on the right and an ignored last row."""
    from mmseg.structures import SegDataSample

    batch = dict(inputs=[], data_samples=[])
    for _ in range(2):
        image = rng.integers(0, 50, (3, 64, 64), dtype=np.uint8)
        image[:, :, 32:] += 180
        labels = torch.zeros(1, 64, 64, dtype=torch.long)
        labels[:, :, 32:] = 1
        labels[:, -1] = 255
        sample = SegDataSample(
            metainfo=dict(
                img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64), flip=False
            )
        )
        sample.gt_sem_seg = PixelData(data=labels)
        batch['inputs'].append(torch.from_numpy(image))
        batch['data_samples'].append(sample)
    return batch


def train_and_predict(name, batch, steps=2):
    torch.manual_seed(0)
    cfg = load(name)
    if 'size' in cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.size = (64, 64)
    model = build_model(cfg)
    model.init_weights()
    optim_wrapper = build_optimizer(cfg, model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    for _ in range(steps):
        losses = model.train_step(batch(np.random.default_rng(0)), optim_wrapper)
        assert all(torch.isfinite(value).all() for value in losses.values())
    after = model.state_dict()
    positions = [key for key in before if key.endswith('.P')]
    assert positions
    assert all(not torch.equal(before[key], after[key]) for key in positions)
    model.eval()
    return losses, model.val_step(batch(np.random.default_rng(0)))


def test_detector_trains_and_predicts():
    losses, predictions = train_and_predict(NUCLEI, detection_batch)
    stages = {key[:2] for key in losses if key.startswith('s')}
    assert stages == {'s0', 's1', 's2'}
    assert any('loss_mask' in key for key in losses)
    for prediction in predictions:
        found = prediction.pred_instances
        assert found.masks.shape == (len(found.scores), 64, 64)
        assert found.bboxes.shape == (len(found.scores), 4)


def test_segmentor_trains_and_predicts():
    losses, predictions = train_and_predict(CAMVID, segmentation_batch)
    assert {'decode.loss_ce', 'aux.loss_ce'} <= losses.keys()
    for prediction in predictions:
        labels = prediction.pred_sem_seg.data
        assert labels.shape == (1, 64, 64)
        assert labels.max() < 11


@pytest.mark.parametrize(
    'name, root, lengths',
    [
        (NUCLEI, 'nuclei/', (160, 40)),
        (CAMVID, 'camvid', (120, 40)),
        (COCO_TINY, 'coco/', (9, 4)),
        (ADE_TINY, 'ade/ADEChallengeData2016', (2, 1)),
    ],
)
def test_config_reads_its_data_layout(name, root, lengths):
    if not (DATA_ROOT / root).is_dir():
        pytest.skip(f'real data not found: {DATA_ROOT / root}')
    cfg = load(name)
    loaders = (cfg.train_dataloader, cfg.val_dataloader)
    for loader, length in zip(loaders, lengths):
        loader.dataset.data_root = str(DATA_ROOT / root)
        dataset = DATASETS.build(loader.dataset)
        assert len(dataset) == length
        sample = dataset[0]
        assert sample['inputs'].shape[0] == 3
        truth = sample['data_samples']
        if cfg.default_scope == 'mmdet':
            assert len(truth.gt_instances.bboxes) > 0
        else:
            classes = truth.gt_sem_seg.data.unique().tolist()
            assert set(classes) <= {*range(len(dataset.metainfo['classes'])), 255}
