"""A trained model as a config and checkpoint that need no dcls_mm.

No backbone of mmdet or mmseg lets the kernel size be set, and none is a ConvNeXt. So
the folded backbone is written as a TorchScript file, which the config loads by
``torch.jit.load``: mmengine accepts the dotted name of any function as a type. The rest
is the config's own, so only the backbone is run and compared, whatever the heads are.
"""

import warnings
from types import FunctionType
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, TRANSFORMS
from torch import nn

from .._listing import listing
from ..checks.errors import ConfigError, errors_about, refusals
from ..deploy.config_file import Beside, dotted_name, write_config
from ..deploy.parts import (
    CHECKED_SHAPES,
    RECORDED_SHAPE,
    check_difference,
    largest_difference,
    sample_images,
    take_part,
)
from ..layers.folding import Folded, switch_to_deploy
from .class_names import class_names
from .configs import load_config
from .outputs import check_new, whole_files
from .trained import build_model, load_trained

CONFIG, CHECKPOINT, BACKBONE = FILES = 'config.py', 'checkpoint.pth', 'backbone.pt'

# The keys that testing and the inferencers read; the rest is for training.
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

OTHER_WAYS = (
    'tools/deploy/export.py writes the whole model as one file, and in Python '
    'dcls_mm.layers.folding.switch_to_deploy(model) folds it in place'
)


def fold_checkpoint(
    config: str,
    checkpoint: str,
    out: str,
    round_positions: bool = False,
    cfg_options: dict[str, Any] | None = None,
) -> str:
    """Fold all DCLS layers, and write files that mmdet or mmseg load without dcls_mm.

    ``config.py`` is for testing; its backbone, ``backbone.pt``, stays in evaluation
    mode. ``checkpoint.pth`` has the weights of the whole model under their old names,
    so it also fits the given config with plain convolutions of the same extent. The new
    model is built and compared with the given one before the files are moved into
    place.

    Args:
        config, cfg_options: see :func:`.configs.load_config`.
        checkpoint: the weights: a path, or a URL that mmengine knows.
        out: the folder to write to; it may be moved afterwards.
        round_positions: see :func:`dcls_mm.layers.fold`; this changes the outputs.

    Returns:
        What was done, and how far the feature maps differ.

    Raises:
        ConfigError: the config can't be used, the model has no DCLS layers or has some
            that can't be folded or lie outside the backbone, or ``out`` can't be
            written.
        CheckpointError: the checkpoint can't be read, or belongs to another model.
    """
    check_new(out, *FILES)
    model, _, weights = load_trained(config, checkpoint, cfg_options)
    _check_only_backbone(model)
    # Read again, as some models (DETR) put tensors into the config they are built from.
    cfg = load_config(config, cfg_options=cfg_options)
    content = _stock_config(cfg)
    part = take_part(model, 'backbone')
    images, recorded = sample_images(part, CHECKED_SHAPES[0], RECORDED_SHAPE)
    with torch.no_grad(), whole_files(out, *FILES) as folder:
        before = part(images)
        with errors_about(config):
            folded = switch_to_deploy(model, round_positions)
        with refusals("the backbone can't be recorded as TorchScript"):
            backbone = _trace(model.backbone, recorded)
            torch.jit.save(backbone, str(folder / BACKBONE))
        meta = {'dataset_meta': class_names(weights, cfg)}
        with refusals(f"--out {out}: {CHECKPOINT} can't be written"):
            state = dict(meta=meta, state_dict=model.state_dict())
            torch.save(state, folder / CHECKPOINT)
        write_config(folder / CONFIG, content)
        stock = build_model(Config.fromfile(folder / CONFIG), f'{out}/{CONFIG}')
        stored = torch.load(folder / CHECKPOINT, weights_only=True)
        stock.load_state_dict(stored['state_dict'])
        with refusals(
            'the recorded backbone does not run at sizes other than the recorded one'
        ):
            written = take_part(stock, 'backbone')(images)
        plain = part(images)
        check_difference(largest_difference(written, plain), 'the written backbone')
        moved = largest_difference(plain, before)
        if not round_positions:
            check_difference(moved, 'the folded backbone')
    return _report(out, folded, moved)


def _trace(backbone: nn.Module, images: torch.Tensor) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        # About what tracing may lose; the comparison at another size shows it.
        warnings.simplefilter('ignore')
        return torch.jit.trace(backbone, images, check_trace=False)


def _check_only_backbone(model: nn.Module) -> None:
    if not isinstance(getattr(model, 'backbone', None), nn.Module):
        raise ConfigError(
            f'a {type(model).__name__} has no model.backbone, the only part that the '
            f'written config loads from a file: {OTHER_WAYS}'
        )
    ours = [
        f'{name} (a {type(module).__name__})'
        for name, module in model.named_modules(remove_duplicate=False)
        if type(module).__module__.startswith('dcls_mm.')
        and name.partition('.')[0] != 'backbone'
    ]
    if ours:
        raise ConfigError(
            f'{listing(ours, 3)} of dcls_mm lie outside the backbone, where a config '
            f'without dcls_mm cannot describe them: {OTHER_WAYS}'
        )


def _stock_config(cfg: Config) -> dict[str, Any]:
    """Return the testing part of a config, with a backbone from a file.

    Raises:
        ConfigError: it names a type of dcls_mm.
    """
    model = {key: value for key, value in cfg.model.items() if key != 'pretrained'}
    model['backbone'] = dict(
        type='torch.jit.load', f=Beside(BACKBONE), map_location='cpu'
    )
    kept = {key: cfg[key] for key in TESTING if key in cfg}
    kept['model'] = model
    kept['default_hooks'] = {
        key: hook
        for key, hook in (cfg.get('default_hooks') or {}).items()
        if key != 'checkpoint' and not (isinstance(hook, dict) and _is_ours(hook, key))
    }
    imports = cfg.get('custom_imports') or {}
    modules = imports.get('imports') or []
    modules = [modules] if isinstance(modules, str) else modules
    others = [name for name in modules if name.split('.')[0] != 'dcls_mm']
    if others:
        kept['custom_imports'] = dict(imports, imports=others)
    for key, value in kept.items():
        _check_stock(value, key)
    return kept


def _check_stock(value: Any, key: str) -> None:
    """Raise a ConfigError if a config names a type of dcls_mm."""
    items = ()
    if isinstance(value, dict):
        items = value.items()
        if _is_ours(value, key):
            raise ConfigError(
                f'{key} is a {_type_name(value, key)} of dcls_mm, which cannot be '
                'built without dcls_mm: leave it out of the given config'
            )
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for name, item in items:
        _check_stock(item, f'{key}.{name}')


def _is_ours(section: dict[str, Any], key: str) -> bool:
    name = _type_name(section, key)
    for registry in (MODELS, HOOKS, TRANSFORMS):
        found = registry.module_dict.get(name)
        name = name if found is None else found.__module__
    return name.partition('.')[0] == 'dcls_mm'


def _type_name(section: dict[str, Any], key: str) -> str:
    kind = section.get('type', '')
    named = isinstance(kind, (type, FunctionType))
    return dotted_name(kind, f'{key}.type') if named else str(kind)


def _report(out: str, folded: list[Folded], moved: float) -> str:
    used, taps = sum(f.used for f in folded), sum(f.taps for f in folded)
    return (
        f'{out}: {", ".join(FILES)}; {len(folded)} layers folded, {used} of '
        f'{taps} taps are not zero ({used / taps:.1%}); the feature maps changed by '
        f'{moved:.2g} of the largest value'
    )
