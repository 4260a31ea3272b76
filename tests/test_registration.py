"""The registered names work wherever OpenMMLab builds a convolution."""

import ast
import importlib
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer, build_upsample_layer
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import dcls_mm
from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    DCLSConvTranspose1d,
    DCLSConvTranspose2d,
    DCLSConvTranspose3d,
)

ROOT = Path(__file__).parents[1]
PACKAGES = [
    'dcls_mm',
    *(
        module.name
        for module in pkgutil.walk_packages(dcls_mm.__path__, 'dcls_mm.')
        if module.ispkg
    ),
]
CONV_CFG = dict(type='DCLSConv2d', dilated_kernel_size=7)


@pytest.mark.parametrize('layer', [DCLSConv1d, DCLSConv2d, DCLSConv3d])
def test_build_conv_layer(layer):
    cfg = dict(type=layer.__name__, dilated_kernel_size=5, interpolation='gauss')
    built = build_conv_layer(cfg, 4, 6, 3, padding=1)
    assert type(built) is layer
    assert built.extent == (5,) * layer.ndim


@pytest.mark.parametrize(
    'layer', [DCLSConvTranspose1d, DCLSConvTranspose2d, DCLSConvTranspose3d]
)
@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_build_upsample_layer(layer, scope):
    pytest.importorskip(scope)
    init_default_scope(scope)
    cfg = dict(type=layer.__name__, kernel_size=4, stride=2, padding=1)
    built = build_upsample_layer(
        dict(cfg, dilated_kernel_size=6), in_channels=4, out_channels=6
    )
    assert type(built) is layer
    assert built(torch.randn(1, 4, *(5,) * layer.ndim)).shape[2:] == (10,) * layer.ndim


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_conv_module_in_any_scope(scope):
    pytest.importorskip(scope)
    init_default_scope(scope)
    module = ConvModule(4, 8, 3, padding=1, conv_cfg=CONV_CFG, norm_cfg=dict(type='BN'))
    assert isinstance(module.conv, DCLSConv2d)
    assert module.conv.bias is None
    assert module(torch.randn(2, 4, 9, 9)).shape == (2, 8, 9, 9)


def test_neck_of_mmdet():
    pytest.importorskip('mmdet')
    init_default_scope('mmdet')
    neck = MODELS.build(
        dict(
            type='FPN',
            in_channels=[4, 8],
            out_channels=6,
            num_outs=3,
            conv_cfg=CONV_CFG,
        )
    )
    neck.init_weights()
    outputs = neck([torch.randn(1, 4, 16, 16), torch.randn(1, 8, 8, 8)])
    assert [tuple(y.shape) for y in outputs] == [(1, 6, s, s) for s in (16, 8, 4)]
    assert not any(isinstance(m, nn.Conv2d) for m in neck.modules())
    sum(y.sum() for y in outputs).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_head_of_mmseg():
    pytest.importorskip('mmseg')
    init_default_scope('mmseg')
    head = MODELS.build(
        dict(
            type='FCNHead',
            in_channels=4,
            channels=6,
            num_classes=3,
            conv_cfg=CONV_CFG,
            norm_cfg=dict(type='BN'),
        )
    )
    assert head([torch.randn(1, 4, 16, 16)]).shape == (1, 3, 16, 16)
    assert sum(isinstance(m, DCLSConv2d) for m in head.modules()) == 3


WITHOUT_OPENMMLAB = """
import sys
sys.modules.update(mmengine=None, mmcv=None)  # importing them now fails
import pydoc
import torch
import dcls_mm
from dcls_mm import DCLSConv2d, construct_kernel, replace_convs, switch_to_deploy
model = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1))
replace_convs(model, DCLSConv2d, dilated_kernel_size=9)
switch_to_deploy(model)
assert model(torch.randn(1, 4, 8, 8)).shape == (1, 4, 8, 8)
assert 'DCLSConv2d' in pydoc.render_doc(dcls_mm)
assert 'ConvNeXtDCLS' not in dir(dcls_mm)
from dcls_mm import ConvNeXtDCLS
"""


def test_layers_and_maths_work_without_openmmlab():
    done = run(WITHOUT_OPENMMLAB)
    assert 'mmengine and mmcv not found: dcls_mm.layers and' in done.stderr
    assert done.stderr.splitlines()[-1] == (
        'ImportError: dcls_mm.backbones.ConvNeXtDCLS needs mmengine, which is not '
        "installed; `pip install 'mmengine>=0.10.3,<1' 'mmcv>=2.1,<2.2'` installs what "
        'is missing.'
    )


def test_names_of_the_front_are_those_of_their_modules():
    star = {}
    exec('from dcls_mm import *', star)
    assert set(dcls_mm.__all__) == star.keys() - {'__builtins__'}
    assert set(dcls_mm.__all__) <= set(dir(dcls_mm))
    assert star['DCLSConv2d'] is DCLSConv2d
    for name in ('ConvNeXtDCLS', 'construct_kernel'):
        assert pickle.loads(pickle.dumps(star[name])) is star[name]
    with pytest.raises(AttributeError, match="'dcls_mm' has no attribute 'DCLSConv4d'"):
        dcls_mm.DCLSConv4d  # noqa: B018


LAZY_PACKAGES = [
    module
    for module in PACKAGES
    if 'lazy_names' in vars(importlib.import_module(module))
]


@pytest.mark.parametrize('name', LAZY_PACKAGES)
def test_type_checkers_see_what_is_imported_late(name):
    """The imports of `if TYPE_CHECKING` and the table give the same objects."""
    package = importlib.import_module(name)
    (block,) = [
        node
        for node in ast.parse(Path(package.__file__).read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING'
    ]
    names = {'__package__': name}
    exec(ast.unparse(block.body), names)
    seen = {key: value for key, value in names.items() if not key.startswith('__')}
    assert seen.keys() == set(package.__all__) - {'__version__'}
    assert all(getattr(package, key) is value for key, value in seen.items())


def test_a_config_of_pure_python_imports_by_the_front(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        'from dcls_mm import ConvNeXtDCLS, DCLSConv2d\n'
        'model = dict(type=ConvNeXtDCLS, arch="atto", depthwise_cfg=dict(\n'
        '    type=DCLSConv2d, kernel_count=5, dilated_kernel_size=7))\n'
    )
    config = Config.fromfile(path, lazy_import=True)
    config.dump(tmp_path / 'dumped.py')
    for cfg in (config, Config.fromfile(tmp_path / 'dumped.py')):
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
        assert type(model) is dcls_mm.ConvNeXtDCLS
        assert type(model.stages[0][0].dwconv) is DCLSConv2d


RELOADED = """
import importlib, sys
import torch
import dcls_mm, dcls_mm.backbones.convnext, dcls_mm.layers.dcls
from dcls_mm.checkpoint import read_checkpoint
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS

training, no_weights = sys.argv[1:]
torch.save({'state_dict': {}, 'loss': HistoryBuffer()}, training)
torch.save({'a': 1}, no_weights)
read_checkpoint(training)

def registered():
    return [MODELS.get(name) for name in ('DCLSConv2d', 'ConvNeXtDCLS')]

def check_all():
    assert registered() == [dcls_mm.DCLSConv2d, dcls_mm.ConvNeXtDCLS]
    cfg = dict(type='ConvNeXtDCLS', arch='atto')
    block = MODELS.build(cfg).stages[0][0]
    assert isinstance(block.dwconv, dcls_mm.DCLSConv2d)

first = registered()
for _ in range(2):
    importlib.reload(dcls_mm)
    assert registered() == first
check_all()

for name in ('layers.dcls', 'layers', 'backbones.convnext', 'backbones'):
    importlib.reload(sys.modules[f'dcls_mm.{name}'])
assert registered() == first
importlib.reload(dcls_mm)
second = registered()
assert not set(first) & set(second)
check_all()

for name in [name for name in sys.modules if name.partition('.')[0] == 'dcls_mm']:
    del sys.modules[name]
import dcls_mm
assert not set(second) & set(registered())
check_all()

from dcls_mm.checkpoint import CheckpointError, read_checkpoint
from dcls_mm.checkpoint.mmengine_loaders import as_data
from mmengine.runner.checkpoint import CheckpointLoader
read_checkpoint(training)
CheckpointLoader.load_checkpoint(no_weights, logger='silent')
try:
    with as_data():
        CheckpointLoader.load_checkpoint(no_weights, logger='silent')
except CheckpointError:
    print('refused')

class DCLSConv2d:
    pass

MODELS.register_module(module=DCLSConv2d, force=True)
importlib.reload(dcls_mm)
"""


def test_reloading_registers_the_new_classes_and_no_other_gives_way(tmp_path):
    done = run(RELOADED, tmp_path / 'training.pth', tmp_path / 'no_weights.pth')
    assert done.stdout == 'refused\n', done.stderr
    assert done.stderr.splitlines()[-1] == (
        "KeyError: 'DCLSConv2d is already registered in model at __main__'"
    )


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, '-c', code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
