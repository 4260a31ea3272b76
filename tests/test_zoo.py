"""Every config makes a training step and a prediction, and the zoo lists all of them.

The models are those of the configs, with an eighth of the channels and few blocks.
"""

import re
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
import yaml
from conftest import assert_close
from mmengine.dataset import Compose
from mmengine.registry import MODELS
from shrunken import batch_for, has_masks, is_panoptic, load_small
from test_configs import (
    BUILT,
    CONFIG_ROOT,
    CONFIGS,
    OVER_TIMM,
    REPO,
    build_model,
    build_optimizer,
    load,
    lookup,
    segmentation_batch,
)

from dcls_mm import switch_to_deploy
from dcls_mm.layers.base import ConstructedConvNd

CASCADE = (
    'cascade_mask_rcnn/cascade-mask-rcnn_{}_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
).format
UPERNET = 'upernet/{}_upernet_8xb2-amp-160k_ade20k-{}.py'.format
ZENODO = (
    'https://zenodo.org/record/7112021/files/convnext_dcls_{}_1k_224_ema.pth'.format
)
GAUSS = (
    'https://zenodo.org/record/8029747/files/convnext_dcls_gauss_tiny_1k_224_ema.pth'
)

# Keys in the order of the values below, which the published training configs state.
KEYS = (
    'model.backbone.arch',
    'model.backbone.depthwise_cfg.kernel_count',
    'model.backbone.drop_path_rate',
    'model.backbone.init_cfg',
    'optim_wrapper.optimizer.lr',
    'optim_wrapper.paramwise_cfg.decay_rate',
    'optim_wrapper.paramwise_cfg.num_layers',
)
PLAIN = 'https://dl.fbaipublicfiles.com/convnext/convnext_{}_1k_224_ema.pth'.format
RECIPES = {
    CASCADE('convnext-dcls-s'): ('small', 40, 0.6, ZENODO('small'), 2e-4, 0.7, 12),
    CASCADE('convnext-dcls-b'): ('base', 40, 0.7, ZENODO('base'), 2e-4, 0.8, 12),
    CASCADE('convnext-dcls-gauss-t'): ('tiny', 26, 0.4, GAUSS, 2e-4, 0.7, 6),
    CASCADE('convnext-s'): ('small', None, 0.6, PLAIN('small'), 2e-4, 0.7, 12),
    CASCADE('convnext-b'): ('base', None, 0.7, PLAIN('base'), 2e-4, 0.8, 12),
    UPERNET('convnext-small', '512x512'): (
        *('small', None, 0.3, PLAIN('small'), 1e-4, 0.9, 12),
    ),
    UPERNET('convnext-base', '512x512'): (
        *('base', None, 0.4, PLAIN('base'), 1e-4, 0.9, 12),
    ),
    UPERNET('convnext-dcls-small', '512x512'): (
        *('small', 40, 0.3, ZENODO('small'), 1e-4, 0.9, 12),
    ),
    UPERNET('convnext-dcls-base', '512x512'): (
        *('base', 40, 0.4, ZENODO('base'), 1e-4, 0.9, 12),
    ),
    UPERNET('convnext-dcls-gauss-tiny', '512x512'): (
        *('tiny', 26, 0.4, GAUSS, 1e-4, 0.9, 6),
    ),
    UPERNET('convnext-dcls-large', '640x640'): ('large', 40, 0.4, None, 1e-4, 0.9, 12),
    UPERNET('convnext-dcls-xlarge', '640x640'): (
        *('xlarge', 40, 0.4, None, 8e-5, 0.9, 12),
    ),
}

MILLIONS = {
    CASCADE('convnext-dcls-s'): 108,
    CASCADE('convnext-dcls-b'): 146,
    UPERNET('convnext-dcls-small', '512x512'): 82,
    UPERNET('convnext-dcls-base', '512x512'): 122,
}


@pytest.mark.parametrize('name', RECIPES)
def test_published_recipe(name):
    cfg = load(name)
    conv = cfg.model.backbone.depthwise_cfg
    conv.setdefault('kernel_count', None)  # a plain convolution has none
    values = [lookup(cfg, key) for key in KEYS]
    if values[3]:
        assert values[3].type == 'Pretrained'
        values[3] = values[3].checkpoint
    assert tuple(values) == RECIPES[name]
    gauss = conv.get('interpolation') == 'gauss'
    version = (cfg.model.backbone.init_cfg or {}).get('version')
    assert version == ('gauss' if gauss else None)


@pytest.mark.parametrize('name', MILLIONS)
def test_published_model_size(name):
    with torch.device('meta'):
        model = build_model(load(name))
    parameters = sum(p.numel() for p in model.parameters())
    assert round(parameters / 1e6) == MILLIONS[name]


@pytest.mark.parametrize(
    'variant, kind, extent, taps',
    [
        ('convnext-dcls-{}', 'DCLSConv2d', 17, 34),
        ('convnext-dcls-gauss-{}', 'DCLSConv2d', 23, 26),
        ('convnext-{}', 'Conv2d', 7, 49),
        ('convnext-dense17-{}', 'LargeKernelConv2d', 17, 289),
        ('convnext-dilated2-{}', 'Conv2d', 13, 49),
    ],
)
@pytest.mark.parametrize('task', ['det', 'seg'])
def test_depthwise_convolution_of_the_ablation(task, variant, kind, extent, taps):
    if task == 'det':
        name = CASCADE(variant.format('t'))
    else:
        name = UPERNET(variant.format('tiny'), '512x512')
    with torch.device('meta'):
        backbone = build_model(load(name)).backbone
    conv = backbone.stages[2][8].dwconv
    dilation, size = conv.dilation[0], conv.kernel_size[0]
    reached = getattr(conv, 'extent', (dilation * (size - 1) + 1,))[0]
    assert (type(conv).__name__, reached) == (kind, extent)
    assert conv.weight[0].numel() == taps
    assert conv.groups == conv.in_channels == 384


@pytest.mark.parametrize('name', BUILT)
def test_config_trains_and_predicts(name):
    cfg = load_small(name)
    model = build_model(cfg)
    optim_wrapper = build_optimizer(cfg, model)
    before = {key: value.clone() for key, value in model.named_parameters()}
    without_gradient = []  # DDP would refuse the next step
    optim_wrapper.optimizer.register_step_pre_hook(
        lambda *_: without_gradient.extend(
            key
            for key, p in model.named_parameters()
            if p.requires_grad and p.grad is None
        )
    )
    losses = model.train().train_step(batch_for(cfg), optim_wrapper)
    assert all(torch.isfinite(value).all() for value in losses.values())
    frozen = {key for key, p in model.named_parameters() if torch.equal(p, before[key])}
    assert not any(key.endswith(('dwconv.weight', '.P', '.SIG')) for key in frozen)
    assert name in OVER_TIMM or not without_gradient
    for prediction in model.eval().val_step(batch_for(cfg)):
        if cfg.default_scope == 'mmseg':
            classes = cfg.model.decode_head.num_classes
            labels = prediction.pred_sem_seg.data
            assert labels.shape == (1, 64, 64)
            assert labels.min() >= 0 and labels.max() < classes
            continue
        if is_panoptic(cfg.model):
            assert prediction.pred_panoptic_seg.sem_seg.shape == (1, 64, 64)
        if cfg.model.type != 'PanopticFPN':
            found = prediction.pred_instances
            numbers = 5 if cfg.default_scope == 'mmrotate' else 4
            assert found.bboxes.shape == (len(found.scores), numbers)
            assert ('masks' in found) == has_masks(cfg.model)
    if name not in OVER_TIMM:  # tests/test_timm folds those
        check_folding(model)


def check_folding(model):
    """Compare the backbone's outputs before and after, if it has DCLS layers."""
    if not any(isinstance(layer, ConstructedConvNd) for layer in model.modules()):
        return
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.backbone(images)
        switch_to_deploy(model)
        found = model.backbone(images)
    assert not any(isinstance(layer, ConstructedConvNd) for layer in model.modules())
    for ours, theirs in zip(found, expected):
        assert_close(ours, theirs, factor=30)


@pytest.mark.parametrize('crop, shorts', [(512, (256, 896)), (640, (320, 1120))])
def test_multi_scale_test(tmp_path, crop, shorts):
    size = {512: 'small', 640: 'large'}[crop]
    cfg = load_small(UPERNET(f'convnext-dcls-{size}', f'{crop}x{crop}'))
    for name in ('image', 'labels'):
        image = np.zeros((40, 50, 3)[: 3 if name == 'image' else 2], np.uint8)
        mmcv.imwrite(image, str(tmp_path / f'{name}.png'))
    versions = Compose(cfg.tta_pipeline)(
        dict(
            img_path=str(tmp_path / 'image.png'),
            seg_map_path=str(tmp_path / 'labels.png'),
            reduce_zero_label=True,
            seg_fields=[],
        )
    )
    heights = [image.shape[1] for image in versions['inputs']]
    assert len(heights) == 12  # six scales, each also mirrored
    assert (min(heights), max(heights)) == shorts
    flips = [sample.flip for sample in versions['data_samples']]
    assert sum(flips) == 6

    model = MODELS.build(dict(cfg.tta_model, module=build_model(cfg))).eval()
    batch = segmentation_batch(np.random.default_rng(0))
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(img_path='image.png'))
    twice = {key: [[value[0]], [value[1]]] for key, value in batch.items()}
    (prediction,) = model.test_step(twice)
    assert prediction.pred_sem_seg.data.shape == (1, 64, 64)


@pytest.mark.parametrize(
    'name', [CASCADE('convnextv2-{}t'), UPERNET('convnextv2-{}tiny', '512x512')]
)
def test_convnext_v2_starts_from_its_plain_parent(tmp_path, name):
    """Both load the official file, whose response norms have extra axes."""
    plain, learned = (load_small(name.format(part)) for part in ('', 'dcls-'))
    backbone = MODELS.build({**plain.model.backbone, 'init_cfg': None})
    weights = {
        key: torch.randn(1, 1, 1, len(value)) if '.grn.' in key else value
        for key, value in backbone.state_dict().items()
        if not key.startswith('norm')
    }
    torch.save({'model': weights}, tmp_path / 'convnextv2.pt')
    outputs = []
    for cfg in (plain, learned):
        cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'convnextv2.pt')
        backbone = MODELS.build(cfg.model.backbone)
        backbone.init_weights()
        outputs.append(backbone.eval()(torch.ones(1, 3, 64, 64)))
    assert type(backbone.stages[0][0].dwconv).__name__ == 'DCLSConv2d'
    for ours, theirs in zip(*outputs):
        assert_close(ours, theirs, factor=5)


def read_yaml(path):
    return yaml.safe_load((REPO / path).read_text(encoding='utf-8'))


METAFILES = read_yaml('model-index.yml')['Import']
ENTRIES = {
    entry['Config']: entry for path in METAFILES for entry in read_yaml(path)['Models']
}


def test_index_lists_every_metafile():
    found = {str(path.relative_to(REPO)) for path in CONFIG_ROOT.glob('*/metafile.yml')}
    assert set(METAFILES) == found


@pytest.mark.parametrize('path', METAFILES)
def test_metafile(path):
    content = read_yaml(path)
    collections = {item['Name']: item for item in content['Collections']}
    for collection in collections.values():
        assert (REPO / collection['README']).is_file()
    for entry in content['Models']:
        config = REPO / entry['Config']
        assert config.is_file()
        assert config.parent == (REPO / path).parent
        assert entry['Name'] == config.stem
        assert entry['In Collection'] in collections
        assert entry['Metadata']['Parameters (M)'] > 0
        assert entry['Metadata']['FLOPs (G)'] > 0
        # mim takes lists for lists of texts, and joins them.
        for value in entry['Metadata'].values():
            assert not isinstance(value, list) or all(isinstance(v, str) for v in value)


def published_metrics(name):
    """Return the results in a config's first line, by their names in a metafile."""
    first = (CONFIG_ROOT / name).read_text(encoding='utf-8').splitlines()[0]
    found = re.findall(r'(box AP|mask AP|mIoU) ([\d.]+\d)', first)
    return {metric: float(value) for metric, value in found}


@pytest.mark.parametrize('name', [n for n in CONFIGS if published_metrics(n)])
def test_published_results_are_listed(name):
    entry = ENTRIES[f'configs/{name}']
    listed = {k: v for result in entry['Results'] for k, v in result['Metrics'].items()}
    listed.pop('mIoU(ms+flip)', None)
    assert listed == published_metrics(name)


def test_every_config_is_listed_and_only_published_results():
    assert set(ENTRIES) == {f'configs/{name}' for name in CONFIGS}
    published = {f'configs/{name}' for name in CONFIGS if published_metrics(name)}
    assert {name for name, entry in ENTRIES.items() if 'Results' in entry} == published
    assert len(published) == 12
    weights = {name for name, entry in ENTRIES.items() if 'Weights' in entry}
    assert weights == {name for name in published if '-dcls-' in name}


# Weights that none of our converters supports.
ELSEWHERE = "[ConvNeXt's](https://github.com/facebookresearch/ConvNeXt)"
FOLDERS = sorted({Path(name).parent.name for name in CONFIGS})


@pytest.mark.parametrize('folder', [name for name in FOLDERS if name != 'demo'])
def test_readme_of_a_method_has_its_parts(folder):
    text = (CONFIG_ROOT / folder / 'README.md').read_text(encoding='utf-8')
    parts = re.findall(r'^## (.+)$', text, flags=re.MULTILINE)
    assert [part for part in parts if part != 'Train and test'] == [
        *('Abstract', 'Results and models', 'Citation')
    ]
    assert '](https://arxiv.org/abs/2112.03740)' in text and '```bibtex\n@' in text
    for line in text.splitlines():
        if line.startswith('| backbone'):
            assert '| Lr schd | mem (GB) | params (M) | FLOPs (G) |' in line
            assert line.endswith('| config | weights |')


@pytest.mark.parametrize('folder', FOLDERS)
def test_figures_of_every_readme(folder):
    """It links every config of the folder, and its figures are the metafile's."""
    text = (CONFIG_ROOT / folder / 'README.md').read_text(encoding='utf-8')
    links = re.findall(r'\]\(\./([^)]+\.py)\)', text)
    assert sorted(links) == sorted(p.name for p in (CONFIG_ROOT / folder).glob('*.py'))
    rows = {link: line for line in text.splitlines() for link in links if link in line}
    for link, row in rows.items():
        entry = ENTRIES[f'configs/{folder}/{link}']
        cells = [cell.strip() for cell in row.split('|')]
        figures = [entry['Metadata'][k] for k in ('Parameters (M)', 'FLOPs (G)')]
        for result in entry.get('Results', ()):
            figures += result['Metrics'].values()
        assert {str(value) for value in figures} <= set(cells), link
        if 'weights |' in text:
            weights = entry.get('Weights')
            none = ELSEWHERE if 'Results' in entry else 'none published'
            assert cells[-2] == (f'[weights]({weights})' if weights else none)
