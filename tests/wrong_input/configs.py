"""Wrong configs of trainings and tests, and wrong overrides."""

from importlib.util import find_spec

import torch
from small_data import (
    detector,
    segmentor,
    with_validation,
    write,
    write_coco,
    write_labels,
    write_voc,
)

from dcls_mm.apis import configs
from dcls_mm.apis import test as testing
from dcls_mm.apis import train as training
from dcls_mm.apis.launchers import join_processes
from dcls_mm.checkpoint import CheckpointError, MissingCheckpointError
from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks.load_from_hook import count_matching

from . import wrong


def train(cfg, **options):
    """Prepare a training on three categories: disc, ring and box."""
    write_coco(images=1)
    write_labels(images=1)
    write_voc(images=1)
    return training.prepare_train(write(cfg), **options)


def test(cfg, checkpoint='x.pth', **options):
    """Prepare a test on them."""
    write_coco(images=1)
    write_labels(images=1)
    torch.save({}, 'x.pth')
    return testing.prepare_test(write(cfg), checkpoint, **options)


def override(key, value=1, **changes):
    """Override a key of a detector's config."""
    write_coco(images=1)
    return configs.load_config(write(detector(**changes)), cfg_options={key: value})


def read(text, name='cfg.py'):
    """Read a config with this text."""
    with open(name, 'w', encoding='utf-8') as file:
        file.write(text)
    return configs.load_config(name)


def without(cfg, *keys):
    """Return a config without some of its sections."""
    return {key: part for key, part in cfg.items() if key not in keys}


def loader(**changes):
    """Return a detector's config with changes in train_dataloader."""
    cfg = detector()
    cfg['train_dataloader'] = {**cfg['train_dataloader'], **changes}
    return cfg


def join(launcher, **changes):
    """Join the processes of a launcher that didn't start this one."""
    cfg = configs.load_config(write(detector(**changes)), launcher=launcher)
    return join_processes(cfg)


def load_from(**shapes):
    """Count the values that fit a model with one layer."""
    model = torch.nn.ModuleDict({'backbone': torch.nn.Linear(2, 2)})
    state_dict = {
        name.replace('__', '.'): torch.ones(shape) for name, shape in shapes.items()
    }
    return count_matching(model, state_dict, 'x.pth')


SECTIONS = [
    *(
        wrong(
            lambda key=key: train(without(detector(), key)),
            ConfigError,
            f'the config has no {key}, so it is not for training',
        )
        for key in ('model', 'optim_wrapper', 'train_dataloader', 'train_cfg')
    ),
    *(
        wrong(
            lambda key=key: test(without(detector(), key)),
            ConfigError,
            f'the config has no {key}, so it is not for testing',
        )
        for key in ('test_dataloader', 'test_evaluator', 'test_cfg')
    ),
    wrong(
        lambda: train(without(with_validation(detector()), 'val_cfg')),
        ConfigError,
        'the config has no val_cfg; it needs all of val_dataloader, val_evaluator, '
        'val_cfg, or none of them',
    ),
    wrong(
        lambda: train({**with_validation(detector()), 'val_evaluator': None}),
        ConfigError,
        'the config has no val_evaluator; it needs all of',
    ),
    wrong(
        lambda: train(without(detector(), 'test_evaluator', 'test_cfg')),
        ConfigError,
        'the config has no test_evaluator and no test_cfg; it needs all of',
    ),
    wrong(
        lambda: train(loader(num_workers=-1)),
        ConfigError,
        'train_dataloader.num_workers must be an integer of at least 0, got -1',
    ),
    wrong(
        lambda: train(loader(num_workers='two')),
        ConfigError,
        "train_dataloader.num_workers must be an integer of at least 0, got 'two'",
    ),
    wrong(
        lambda: train(loader(num_workers=True)),
        ConfigError,
        'train_dataloader.num_workers must be an integer of at least 0, got True',
    ),
    wrong(
        lambda: train(detector(), auto_scale_lr=True),
        ConfigError,
        '--auto-scale-lr: the config has no auto_scale_lr.base_batch_size',
    ),
    wrong(
        lambda: train(detector(auto_scale_lr=None), auto_scale_lr=True),
        ConfigError,
        '--auto-scale-lr: the config has no auto_scale_lr.base_batch_size',
    ),
    wrong(
        lambda: train(detector(optim_wrapper={'type': 'ApexOptimWrapper'}), amp=True),
        ConfigError,
        '--amp: optim_wrapper.type must be OptimWrapper or AmpOptimWrapper, got Apex',
    ),
    wrong(
        lambda: train(detector(dataset={'ann_file': 'absent.json'})),
        ConfigError,
        "train_dataloader.dataset.ann_file: 'data/absent.json' does not exist",
        '--cfg-options train_dataloader.dataset.ann_file=...',
    ),
    wrong(
        lambda: train(segmentor(dataset={'data_root': 'nowhere'})),
        ConfigError,
        "train_dataloader.dataset.data_root: 'nowhere' does not exist",
    ),
    wrong(
        lambda: train(
            segmentor(
                dataset={'data_prefix': {'img_path': 'images', 'seg_map_path': 'x'}}
            )
        ),
        ConfigError,
        "train_dataloader.dataset.data_prefix.seg_map_path: 'data/x' does not exist",
    ),
    wrong(
        lambda: test(detector(), 'absent.pth'),
        MissingCheckpointError,
        'checkpoint absent.pth does not exist (looked in ',
    ),
    wrong(
        lambda: test(detector(), out='maps'),
        ConfigError,
        '--out maps: detections go into one file, whose name must end in .pkl',
    ),
    wrong(
        lambda: test(segmentor(), out='maps.pkl'),
        ConfigError,
        '--out maps.pkl: must be the name of a folder, as label maps are one file',
    ),
    wrong(
        lambda: test(detector(default_hooks=None), show_dir='shown'),
        ConfigError,
        '--show and --show-dir need default_hooks.visualization in the config',
    ),
    wrong(
        lambda: test(
            segmentor(
                visualizer=None,
                default_hooks={'visualization': {'type': 'SegVisualizationHook'}},
            ),
            show_dir='shown',
        ),
        ConfigError,
        '--show-dir: the config has no visualizer',
    ),
    wrong(
        lambda: test(segmentor(), tta=True),
        ConfigError,
        '--tta: the config has no tta_model and no tta_pipeline',
    ),
    wrong(
        lambda: test(segmentor(tta_model={'type': 'SegTTAModel'}), tta=True),
        ConfigError,
        '--tta: the config has no tta_pipeline',
    ),
]

READING = [
    wrong(
        lambda: configs.load_config('absent.py'),
        ConfigError,
        'config absent.py does not exist (looked in ',
    ),
    wrong(
        lambda: read('model = dict('),
        ConfigError,
        'cfg.py: cannot be read, SyntaxError: ',
    ),
    wrong(
        lambda: read('model = undefined'),
        ConfigError,
        "cfg.py: cannot be read, NameError: name 'undefined' is not defined",
    ),
    wrong(
        lambda: read('model = dict(1)'),
        ConfigError,
        'cfg.py: cannot be read, TypeError: ',
    ),
    wrong(
        lambda: read('{"model": ', 'cfg.json'),
        ConfigError,
        'cfg.json: cannot be read, ',
        'line 1 column',
    ),
    wrong(
        lambda: read("_base_ = './absent.py'"),
        ConfigError,
        'cfg.py: cannot be read, FileNotFoundError: ',
        'absent.py',
    ),
    wrong(
        lambda: read("custom_imports = dict(imports=['absent_package'])"),
        ConfigError,
        'cfg.py: cannot be read, ImportError: ',
        'absent_package',
    ),
    wrong(
        lambda: read('from mmengine.config import read_base\nfrom absent import A\n'),
        ConfigError,
        'cfg.py: cannot be read, ',
        'absent',
    ),
    wrong(
        lambda: read('model: 3', 'cfg.txt'),
        ConfigError,
        'cfg.txt: cannot be read, OSError: Only py/yml/yaml/json type are supported',
    ),
    wrong(
        lambda: read("model = dict(type='RetinaNet')"),
        ConfigError,
        'cfg.py: default_scope must be one of mmdet, mmrotate, mmseg, got None, and no '
        'type in the config is one of their classes',
    ),
    wrong(
        lambda: read("default_scope = 'mmpose'"),
        ConfigError,
        "cfg.py: default_scope must be one of mmdet, mmrotate, mmseg, got 'mmpose'",
    ),
    *(
        wrong(
            lambda text=text: read(text),
            *(ConfigError, 'cfg.py: ', 'onedl-mmrotate', 'install'),
        )
        for text in (
            "default_scope = 'mmrotate'",
            "_base_ = 'mmrotate::oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py'",
        )
        if find_spec('mmrotate') is None
    ),
]

OVERRIDES = [
    wrong(
        lambda: override('custom_hooks.0.type', 'X'),
        ConfigError,
        '--cfg-options custom_hooks.0.type: the config has no custom_hooks, so there '
        'is no 0 in it; write the list into a config whose _base_ is this one',
    ),
    wrong(
        lambda: override('optim_wrapper.parts.0.lr'),
        ConfigError,
        'the config has no optim_wrapper.parts, so there is no 0 in it',
    ),
    wrong(
        lambda: override('visualizer.vis_backends.0.type', 'X'),
        ConfigError,
        'the config has no visualizer.vis_backends, so there is no 0 in it',
    ),
    wrong(
        lambda: override('default_hooks.checkpoint.interval', default_hooks=None),
        ConfigError,
        '--cfg-options default_hooks.checkpoint.interval: default_hooks is None, '
        'which has no checkpoint to set',
    ),
    wrong(
        lambda: override('train_dataloder.batch_size'),
        ConfigError,
        'no config has a train_dataloder; did you mean train_dataloader?',
    ),
    wrong(
        lambda: override('model.bbox_haed.num_classes'),
        ConfigError,
        'model has no bbox_haed; did you mean bbox_head?',
    ),
    wrong(
        lambda: override('train_dataloader.dataset.pipeline.9.scale'),
        ConfigError,
        'train_dataloader.dataset.pipeline is a list of 4, without a 9',
    ),
    wrong(
        lambda: override('train_dataloader.dataset.pipeline.Resize.scale'),
        ConfigError,
        'is a list of 4, without a Resize',
    ),
    wrong(
        lambda: override('train_cfg.max_epochs.first'),
        ConfigError,
        'train_cfg.max_epochs is 1, which has no first to set',
    ),
    wrong(
        lambda: override('data_root', 'x', data_root='data'),
        ConfigError,
        'data_root is a variable of the config file, and its value has already been '
        'used; set train_dataloader.dataset.data_root, test_dataloader.dataset.data',
    ),
]

LAUNCHERS = [
    wrong(
        lambda: join('pytorch'),
        ConfigError,
        '--launcher pytorch: the environment has no RANK, WORLD_SIZE, MASTER_ADDR, '
        'MASTER_PORT; start the processes by torchrun, as tools/dist_train.sh does',
    ),
    wrong(
        lambda: join('slurm'),
        ConfigError,
        '--launcher slurm: needs a GPU, and none was found',
    ),
    wrong(
        lambda: join('mpi'),
        ConfigError,
        '--launcher mpi: needs a GPU, and none was found',
    ),
    wrong(
        lambda: join('pytorch', strategy={'type': 'DDPStrategy'}),
        ConfigError,
        'strategy: the FlexibleRunner needs a GPU for several processes',
    ),
    wrong(
        lambda: join('pytorch', runner_type='FlexibleRunner'),
        ConfigError,
        'runner_type: the FlexibleRunner needs a GPU for several processes',
    ),
]

LOAD_FROM = [
    wrong(
        lambda: load_from(weight=(2, 2), bias=(2,)),
        CheckpointError,
        "load_from x.pth: only 0 of the 2 values of the model's backbone are taken",
        'It holds weight, bias.',
    ),
    wrong(
        lambda: load_from(backbone__weight=(3, 3), backbone__bias=(3,)),
        CheckpointError,
        "2 don't fit (backbone.weight [3, 3] instead of [2, 2], backbone.bias [3]",
    ),
    wrong(
        lambda: load_from(),
        CheckpointError,
        '2 are not in it (backbone.weight, backbone.bias)',
        "init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)",
    ),
]

ROWS = [*SECTIONS, *READING, *OVERRIDES, *LAUNCHERS, *LOAD_FROM]
