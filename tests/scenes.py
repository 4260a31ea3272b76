"""The demo models with random weights, on a few drawn scenes."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import save_checkpoint

from dcls_mm.datasets import write_scenes

DEMOS = Path(__file__).resolve().parents[1] / 'configs' / 'demo'
CONFIGS = {
    'mmdet': DEMOS / 'cascade-mask-rcnn_convnext-dcls-demo_fpn_shapes.py',
    'mmseg': DEMOS / 'upernet_convnext-dcls-demo_shapes.py',
}


def write_demo(folder, scope, count=3):
    """Write scenes, a config and a checkpoint; return the names of the last two.

    The scenes are 96 pixels wide and lie in ``images/val`` of the folder.
    """
    list(write_scenes(str(folder), split='val', count=count, seed=3, size=96))
    cfg = Config.fromfile(CONFIGS[scope])
    cfg.test_dataloader.update(batch_size=1, num_workers=0, persistent_workers=False)
    cfg.test_dataloader.dataset.data_root = str(folder)
    if scope == 'mmseg':  # images are taken as they are, of whatever size
        steps = cfg.test_dataloader.dataset.pipeline
        cfg.test_dataloader.dataset.pipeline = [s for s in steps if s.type != 'Resize']
    if scope == 'mmdet':
        cfg.test_evaluator.ann_file = f'{folder}/annotations/val.json'
    config, checkpoint = folder / f'{scope}.py', folder / f'{scope}.pth'
    cfg.dump(config)
    init_default_scope(scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    meta = {'dataset_meta': dict(cfg.test_dataloader.dataset.metainfo)}
    save_checkpoint({'state_dict': model.state_dict(), 'meta': meta}, str(checkpoint))
    return str(config), str(checkpoint)
