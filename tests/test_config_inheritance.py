"""Inheritance of configs: from plain to DCLS, over at most three files of ours."""

import ast
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from test_configs import (
    CONFIG_ROOT,
    CONFIGS,
    OVER_MMROTATE,
    OVER_TIMM,
    build_model,
    load,
    needs_mmrotate,
)


def bases(path):
    """Return the files in a config's _base_, as it names them."""
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            named = ast.literal_eval(node.value)
            return [named] if isinstance(named, str) else named
    return []


def depth(path):
    """Count the files of ours from this one down the chain; mmdet's end it."""
    ours = [path.parent / base for base in bases(path) if '::' not in base]
    return 1 + max((depth(base) for base in ours), default=0)


@pytest.mark.parametrize('name', CONFIGS)
def test_config_is_short_and_shallow(name):
    path = CONFIG_ROOT / name
    assert depth(path) <= 3
    assert len(path.read_text(encoding='utf-8').splitlines()) <= 35


DELETION = re.compile('_delete_=True')
DELETING = {
    str(path.relative_to(CONFIG_ROOT)): DELETION.findall(path.read_text('utf-8'))
    for path in sorted(CONFIG_ROOT.glob('**/*.py'))
}


@pytest.mark.parametrize(
    'name, number',
    [
        pytest.param(
            *(name, number),
            marks=[needs_mmrotate] if name in OVER_MMROTATE else [],
        )
        for name, found in DELETING.items()
        for number in range(len(found))
        if '_base_/datasets/shapes_oriented' not in name  # in a comment
    ],
)
def test_what_is_deleted_would_be_in_the_way(tmp_path, name, number):
    """From a parent of ours, only a layer or backbone with other arguments is."""
    path = CONFIG_ROOT / name
    text = path.read_text(encoding='utf-8')
    if not any('::' in base for base in bases(path)):
        assert re.search(
            r"depthwise_cfg=dict\(\s*_delete_=True,\s*type='(DCLS|Flex)Conv2d'|"
            r"backbone=dict\(\s*_delete_=True,\s*type='TimmBackbone'",
            text,
        )
        return
    copied = shutil.copytree(CONFIG_ROOT, tmp_path / 'configs') / name
    start, end = list(DELETION.finditer(text))[number].span()
    copied.write_text(f'{text[:start]}**{{}}{text[end:]}', encoding='utf-8')
    assert Config.fromfile(copied).to_dict() != Config.fromfile(path).to_dict()


def differences(ours, theirs, path=''):
    """Return the dotted keys at which two configs differ."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return set() if ours == theirs else {path[1:]}
    keys = ours.keys() | theirs.keys()
    found = (differences(ours.get(k), theirs.get(k), f'{path}.{k}') for k in keys)
    return set().union(*found)


# DCLS config -> the plain one beside it; not all of these exist.
PLAIN = {
    name: name.replace('convnext-dcls-gauss', 'convnext').replace('-dcls', '')
    for name in CONFIGS
    if '-dcls' in name and 'convnext' in name
}


@pytest.mark.parametrize('name', [n for n, plain in PLAIN.items() if plain in CONFIGS])
def test_dcls_differs_from_its_plain_parent_by_what_it_names(name):
    assert f'./{Path(PLAIN[name]).name}' in bases(CONFIG_ROOT / name)
    dcls, plain = load(name), load(PLAIN[name])
    assert plain.model.backbone.depthwise_cfg == dict(type='Conv2d', kernel_size=7)
    named = {'model.backbone.depthwise_cfg'}
    if '-atto' in name:  # trained from random weights
        named |= {'optim_wrapper.paramwise_cfg', 'position_learning', 'clamp_positions'}
    elif 'convnextv2' not in name:  # which starts from the plain weights
        named |= {'model.backbone.init_cfg', 'checkpoint_file'}
    different = differences(dcls.to_dict(), plain.to_dict())
    assert {re.sub(r'(?<=_cfg)\..*', '', key) for key in different} == named


@pytest.mark.parametrize('name', [n for n in OVER_TIMM if '-dcls' in n])
def test_network_of_timm_differs_from_its_plain_parent_by_its_name(name):
    dcls, plain = load(name), load(name.replace('-dcls', ''))
    assert differences(dcls.to_dict(), plain.to_dict()) == {
        'model.backbone.model_name',
        'model.backbone.init_cfg.checkpoint',
        'checkpoint_file',
    }


def test_lines_that_put_dcls_into_any_config(tmp_path):
    text = (CONFIG_ROOT / '_base_/README.md').read_text(encoding='utf-8')
    (snippet,) = re.findall(r'```python\n(.*?)```', text, flags=re.DOTALL)
    assert len(snippet.splitlines()) == 10
    copied = shutil.copytree(CONFIG_ROOT, tmp_path / 'configs')
    path = copied / 'mask_rcnn' / 'mine.py'
    path.write_text(snippet, encoding='utf-8')
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = build_model(cfg)
    positions = [key for key, _ in model.named_parameters() if key.endswith('.P')]
    assert len(positions) == 16  # the 3x3 convolutions of ResNet-50
    assert cfg.optim_wrapper.paramwise_cfg.position_lr_mult == 5
    assert [hook.type for hook in cfg.custom_hooks] == ['ClampPositionsHook']
