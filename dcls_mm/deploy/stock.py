"""A trained model as a config and checkpoint that need no dcls_mm.

No backbone of mmdet or mmseg has a kernel size to set, or is a ConvNeXt. So the folded
backbone goes into a TorchScript file, and the config builds it by ``torch.jit.load``:
mmengine takes the dotted name of any function for a type. All else is the config's own.
"""

import warnings
from typing import Any, Optional

import torch
from mmengine.config import Config
from torch import nn

from ..engine.config_checks import ConfigError, errors_about
from ..engine.models import build_model, load_trained
from ..reparameterize import Folded, switch_to_deploy
from .models import (
    CHECKED_SHAPES,
    RECORDED_SHAPE,
    Part,
    check_difference,
    largest_difference,
    sample_images,
    take_part,
    whole_files,
)

CONFIG, CHECKPOINT, BACKBONE = FILES = 'config.py', 'checkpoint.pth', 'backbone.pt'

# What of a config testing and the inferencers read; the rest is for training.
TESTING = (
    'default_scope',
    'env_cfg',
    'vis_backends',
    'visualizer',
    'log_level',
    'log_processor',
    'test_cfg',
    'test_dataloader',
    'test_evaluator',
    'test_pipeline',
    'tta_model',
    'tta_pipeline',
)


def reparameterize_checkpoint(
    config: str,
    checkpoint: str,
    out: str,
    round_positions: bool = False,
    cfg_options: Optional[dict[str, Any]] = None,
) -> str:
    """Fold all DCLS layers, and write what mmdet or mmseg loads without dcls_mm.

    ``config.py`` is for testing; its backbone, ``backbone.pt``, stays in evaluation.
    ``checkpoint.pth`` has the weights of the whole model, by the names that they had:
    it also fits the given config where that names plain convolutions of the extent.
    They are built and compared with the given model before they take their places.

    Args:
        config, cfg_options: see :func:`.launch.load_config`.
        checkpoint: the weights: a path, or a URL that mmengine knows.
        out: the folder to write to.
        round_positions: see :func:`dcls_mm.reparameterize.fold`; outputs change.

    Returns:
        What was done, and how the outputs differ, in lines.

    Raises:
        ConfigError: the config can't be used, the model has no DCLS layers, or some
            that can't be folded or lie outside the backbone, or ``out`` can't be
            written to.
        CheckpointError: the checkpoint can't be read, or is of another model.
    """
    model, cfg, weights = load_trained(config, checkpoint, cfg_options)
    _check_only_backbone(model)
    images = sample_images(model, CHECKED_SHAPES[0])
    with torch.no_grad():
        before = Part.forward(take_part(model, 'model'), images)
        with errors_about(config):
            folded = switch_to_deploy(model, round_positions)
        with whole_files(out, *FILES) as folder:
            backbone = _trace_backbone(model)
            torch.jit.save(backbone, str(folder / BACKBONE))
            torch.save(
                dict(meta=_dataset_meta(weights), state_dict=model.state_dict()),
                folder / CHECKPOINT,
            )
            (folder / CONFIG).write_text(_stock_config(cfg).pretty_text)
            stock = build_model(Config.fromfile(folder / CONFIG))
            stored = torch.load(folder / CHECKPOINT, weights_only=True)
            stock.load_state_dict(stored['state_dict'])
            folded_outputs = take_part(model, 'model')(images)
            difference = largest_difference(
                take_part(stock, 'model')(images), folded_outputs
            )
            check_difference(difference, 'the written model')
            moved = largest_difference(folded_outputs, before)
            if not round_positions:
                check_difference(moved, 'the folded model')
    return _report(out, folded, moved)


def _trace_backbone(model: nn.Module) -> torch.jit.ScriptModule:
    images = sample_images(model, RECORDED_SHAPE)
    with warnings.catch_warnings():
        # Of what a record may not keep: the comparison at another size shows it.
        warnings.simplefilter('ignore')
        return torch.jit.trace(model.backbone, images, check_trace=False)


def _check_only_backbone(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if type(module).__module__.startswith('dcls_mm.') and not name.startswith(
            'backbone'
        ):
            raise ConfigError(
                f'{name} is a {type(module).__name__} of dcls_mm outside the backbone, '
                'which no config of stock code describes: use tools/deploy/export.py'
            )


def _dataset_meta(checkpoint: dict) -> dict[str, Any]:
    """The names and colours of the classes, where the checkpoint has them."""
    meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    return {'dataset_meta': {k: meta[k] for k in ('classes', 'palette') if k in meta}}


def _stock_config(cfg: Config) -> Config:
    kept = {key: cfg[key] for key in TESTING if key in cfg}
    model = dict(cfg.model)
    model['backbone'] = dict(
        type='torch.jit.load', f='{{ fileDirname }}/' + BACKBONE, map_location='cpu'
    )
    model.pop('pretrained', None)  # a segmentor hands it to its backbone
    hooks = {
        key: hook
        for key, hook in (cfg.get('default_hooks') or {}).items()
        if key != 'checkpoint'
    }
    imports = cfg.get('custom_imports') or {}
    others = [i for i in imports.get('imports', []) if i.split('.')[0] != 'dcls_mm']
    if others:
        kept['custom_imports'] = dict(imports, imports=others)
    return Config(dict(kept, model=model, default_hooks=hooks))


def _report(out: str, folded: list[Folded], moved: float) -> str:
    used, taps = sum(f.used for f in folded), sum(f.taps for f in folded)
    return (
        f'{out}: {", ".join(FILES)}; {len(folded)} layers folded, {used} of '
        f'{taps} taps are not zero ({used / taps:.1%}); the outputs changed by '
        f'{moved:.2g} of the largest'
    )
