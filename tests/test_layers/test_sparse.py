"""Layers in the sparse form, against the dense form in float64."""

import copy
import io
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import assert_close
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.functional import native_code
from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    DCLSConvTranspose2d,
    FlexConv1d,
    FlexConv2d,
    LargeKernelConv2d,
    SparseConvNd,
)
from dcls_mm.layers import sparse as module
from dcls_mm.layers.dropin import Dcls2d
from dcls_mm.layers.folding import fold, switch_to_deploy

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    native_code.missing() is not None, reason=str(native_code.missing())
)


def dcls2d(out=4, *args, **options):
    options = dict(padding=1, dilated_kernel_size=9, groups=4) | options
    return DCLSConv2d(4, out, 3, *args, **options)


IMAGE, SERIES = (4, 21, 18), (4, 23)
LAYERS = {
    'plain': (dcls2d, IMAGE),
    '1d': (
        lambda: DCLSConv1d(4, 4, 5, padding=2, groups=4, dilated_kernel_size=7),
        SERIES,
    ),
    'uneven': (
        lambda: DCLSConv1d(4, 4, 5, padding='same', groups=4, dilated_kernel_size=8),
        SERIES,
    ),
    'causal': (lambda: FlexConv1d(4, 4, 9, padding='causal', groups=4), SERIES),
    'same': (lambda: dcls2d(padding='same', dilated_kernel_size=(8, 5)), IMAGE),
    'valid': (lambda: dcls2d(padding=0, bias=False), IMAGE),
    'wide padding': (lambda: dcls2d(padding=(11, 9)), IMAGE),
    'multiplier': (lambda: dcls2d(12), IMAGE),
    'shared positions': (lambda: dcls2d(per_output_positions=False), IMAGE),
    'columns': (lambda: dcls2d(position_axes=(1,)), IMAGE),
    'gauss': (lambda: dcls2d(interpolation='gauss'), IMAGE),
    'circular': (lambda: dcls2d(padding_mode='circular'), IMAGE),
    'reflect': (lambda: dcls2d(padding_mode='reflect'), IMAGE),
    '1d, replicate': (
        lambda: DCLSConv1d(
            *(4, 8, 5),
            padding='same',
            groups=4,
            dilated_kernel_size=8,
            padding_mode='replicate',
        ),
        SERIES,
    ),
    'drop-in': (
        lambda: Dcls2d(
            *(4, 4, 3),
            dilated_kernel_size=7,
            padding=3,
            groups=4,
            version='v1',
        ),
        IMAGE,
    ),
    'large': (
        lambda: LargeKernelConv2d(4, 4, 5, padding=4, dilation=2, groups=4),
        IMAGE,
    ),
    'flex': (lambda: FlexConv2d(4, 4, 9, padding='same', groups=4), IMAGE),
    'one channel': (
        lambda: DCLSConv2d(1, 1, 3, padding=2, dilated_kernel_size=5),
        (1, 9, 8),
    ),
}
ROUNDABLE = [
    name for name in LAYERS if name not in ('causal', 'gauss', 'large', 'flex')
]


def both(name, **options):
    """Return a layer's sparse form, its dense form in float64, and images."""
    make, shape = LAYERS[name]
    layer = make().eval()
    if hasattr(layer, 'P'):
        nn.init.uniform_(layer.P, -2, 2)
    conv = fold(layer, form='sparse', **options)
    assert isinstance(conv, SparseConvNd)
    return conv, fold(layer, **options).double(), torch.randn(2, *shape)


@pytest.mark.parametrize('name', LAYERS)
def test_computes_what_the_dense_form_does(name):
    conv, dense, x = both(name)
    assert_close(conv(x), dense(x.double()), torch.float32)
    assert_close(conv(x[0]), dense(x.double())[0], torch.float32)


@pytest.mark.parametrize('name', ROUNDABLE)
def test_rounded_positions(name):
    conv, dense, x = both(name, round_positions=True)
    count = 5 if conv.ndim == 1 else 9
    assert (conv.kernel().flatten(1) != 0).sum(1).max() <= count
    assert_close(conv(x), dense(x.double()), torch.float32)


def test_bfloat16():
    conv, dense, x = both('plain')
    conv, x = conv.bfloat16(), x.bfloat16()
    dense = dense.bfloat16().double()
    y = conv(x)
    assert y.dtype == torch.bfloat16
    assert_close(y, dense(x.double()), torch.bfloat16)


def test_a_layer_in_bfloat16():
    layer = dcls2d().bfloat16().eval()
    conv, x = fold(layer, form='sparse'), torch.randn(2, *IMAGE).bfloat16()
    assert_close(conv(x), fold(layer).double()(x.double()), torch.bfloat16)


def test_channels_last_stays_channels_last():
    conv, dense, x = both('multiplier')
    y = conv(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert conv(x).is_contiguous()
    assert_close(y, dense(x.double()), torch.float32)


@pytest.mark.parametrize('taps', [0, 1])
def test_hardly_any_taps(taps):
    layer = LargeKernelConv2d(4, 4, 5, padding=2, groups=4)
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.weight[1, 0, 3, 2] = taps
    conv, x = fold(layer, form='sparse'), torch.randn(1, *IMAGE)
    assert_close(conv(x), fold(layer).double()(x.double()), torch.float32)


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies(copied):
    conv, _, x = both('circular')
    assert torch.equal(copied(conv)(x), conv(x))


@pytest.mark.parametrize('assign', [False, True])
def test_a_state_dict_loads_into_a_layer_with_other_taps(assign):
    conv, _, x = both('plain')
    other, _, _ = both('plain', round_positions=True)
    assert len(conv.values) != len(other.values)
    model = nn.Sequential(other)
    model.load_state_dict(nn.Sequential(conv).state_dict(), assign=assign)
    assert torch.equal(model(x), conv(x))


def test_a_state_dict_of_other_outputs_does_not_load():
    conv, _, _ = both('plain')
    with pytest.raises(RuntimeError, match='size mismatch for'):
        conv.load_state_dict(both('multiplier')[0].state_dict())


def test_a_state_dict_without_taps_does_not_load():
    conv, _, x = both('plain')
    before = conv(x)
    with pytest.raises(RuntimeError, match='Missing key'):
        conv.load_state_dict({'bias': conv.bias})
    assert torch.equal(conv(x), before)


def test_taps_outside_the_extent_are_an_error():
    """A file may hold anything."""
    conv, _, x = both('plain')
    for name in module.Taps._fields[:-1]:
        broken = copy.deepcopy(conv)
        getattr(broken, name)[-1] = 1000
        with pytest.raises(ValueError, match='taps'):
            broken(x)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_other_dtypes_run_densely_and_say_so(dtype, caplog):
    module._warn_once.cache_clear()
    conv, dense, x = both('uneven')
    with caplog.at_level(logging.WARNING):
        y = conv.to(dtype)(x.to(dtype))
        conv(x.to(dtype))
    (record,) = caplog.records
    assert f'as the input is {dtype}' in record.getMessage()
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), dense(x.double()), rtol=1e-2, atol=1e-2)


def test_without_the_compiled_part(monkeypatch, caplog):
    module._warn_once.cache_clear()
    conv, dense, x = both('circular')
    monkeypatch.setattr(native_code, 'missing', lambda: 'it is not built')
    with caplog.at_level(logging.WARNING):
        y = conv(x)
    assert 'it is not built' in caplog.text
    assert_close(y, dense(x.double()), torch.float32)


def test_autocast_and_transforms():
    conv, dense, x = both('plain')
    with torch.autocast('cpu', torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    assert_close(y, dense(x.double()), torch.bfloat16, factor=4)
    mapped = torch.func.vmap(conv)(x)
    assert_close(mapped, dense(x.double()), torch.float32)


def test_a_gradient_is_an_error():
    conv, _, x = both('plain')
    y = conv(x.requires_grad_())
    with pytest.raises(RuntimeError, match='no autograd formula'):
        y.sum().backward()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda x: x.bfloat16(), r'\(torch.bfloat16\) and kernel type \(torch.float32'),
        (lambda x: x[:, :3], 'must have 4 channels'),
        (lambda x: x[0, 0], 'must have 4 axes'),
        (lambda x: x[..., :2], "Kernel size can't be greater"),
    ],
)
def test_wrong_images(change, message):
    conv, _, x = both('valid')
    with pytest.raises((RuntimeError, ValueError), match=message):
        conv(change(x))


RECORDED = ['plain', 'uneven', 'causal', 'multiplier', 'circular', 'same']


def smaller(x):
    """Another batch and size, to see that neither is fixed."""
    return x[:1, ..., 3:-2].contiguous()


@pytest.mark.parametrize('name', RECORDED)
def test_export(name):
    conv, dense, x = both(name)
    free = {axis: torch.export.Dim.AUTO for axis in range(x.ndim) if axis != 1}
    program = torch.export.export(conv, (x,), dynamic_shapes=(free,))
    assert 'dcls_mm.convolve_taps' in str(program.graph)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for images in (x, smaller(x)):
        assert_close(loaded(images), dense(images.double()), torch.float32)


@pytest.mark.filterwarnings('ignore:.*torch.jit:DeprecationWarning')
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('name', RECORDED)
def test_trace(name):
    conv, dense, x = both(name)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(conv, x), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    for images in (x, smaller(x)):
        assert_close(loaded(images), dense(images.double()), torch.float32)


@pytest.mark.parametrize('name', RECORDED)
def test_onnx_gets_the_dense_kernel(name, tmp_path):
    pytest.importorskip('onnxscript')
    runtime = pytest.importorskip('onnxruntime')
    if torch.__version__ < (2, 7):
        pytest.skip('torch 2.6 does not tell that it exports to ONNX')
    conv, dense, x = both(name)
    path = str(tmp_path / 'layer.onnx')
    torch.onnx.export(conv, (x,), dynamo=True, input_names=['x'], verbose=False).save(
        path
    )
    session = runtime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (y,) = session.run(None, {'x': x.numpy()})
    assert_close(torch.from_numpy(y), dense(x.double()), torch.float32)


def test_compile():
    conv, dense, x = both('plain')
    compiled = torch.compile(conv, backend='eager', fullgraph=True)
    assert_close(compiled(x), dense(x.double()), torch.float32)


def test_flops_are_those_of_the_taps():
    conv, _, x = both('same', round_positions=True)
    with FlopCounterMode(display=False) as counter:
        conv(x)
    taps = int((conv.kernel() != 0).sum())
    assert counter.get_total_flops() >= 2 * taps * len(x) * x[0, 0].numel()


def test_a_model_gets_both_forms():
    model = nn.Sequential(
        dcls2d(),
        DCLSConv2d(4, 4, 3, padding=1),
        dcls2d(stride=2),
        DCLSConvTranspose2d(4, 4, 3, groups=4),
    ).eval()
    x = torch.randn(1, *IMAGE)
    with torch.no_grad():
        expected = model(x)
        found = switch_to_deploy(model, form='sparse')
        assert [f.form for f in found] == ['sparse', 'dense', 'dense', 'dense']
        assert [type(m) for m in model[:2]] == [SparseConvNd, nn.Conv2d]
        assert found[0].used == (model[0].kernel() != 0).sum()
        assert_close(model(x), expected, factor=4)


def test_backbone():
    backbone = ConvNeXtDCLS(dict(depths=[1, 1, 2, 1], dims=[8, 8, 16, 16])).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = backbone(x)
        backbone.switch_to_deploy(form='sparse')
        assert sum(isinstance(m, SparseConvNd) for m in backbone.modules()) == 5
        for actual, wanted in zip(backbone(x), expected):
            assert_close(actual, wanted, factor=20)


@pytest.mark.parametrize(
    ('layer', 'reason'),
    [
        (DCLSConv2d(4, 4, 3), 'it is not depthwise'),
        (dcls2d(stride=2), r'its stride is \(2, 2\)'),
        (DCLSConv3d(4, 4, 3, groups=4), 'it has 3 axes'),
        (DCLSConvTranspose2d(4, 4, 3, groups=4), 'it is transposed'),
        (dcls2d().double(), 'it is torch.float64'),
    ],
)
def test_what_can_not_be_sparse(layer, reason):
    with pytest.raises(ValueError, match=f"form must be 'dense'.* {reason}"):
        fold(layer, form='sparse')
    model = nn.Sequential(layer)
    with pytest.raises(ValueError, match=f'no layer can be sparse: 0: {reason}'):
        switch_to_deploy(model, form='sparse')
    assert model[0] is layer


LOADING = """
import torch
import dcls_mm

x = torch.ones(1, 4, 30, 20)
print(torch.jit.load('traced.pt')(x).double().sum().item())
print(torch.export.load('exported.pt2').module()(x).double().sum().item())
"""


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_files_load_where_dcls_mm_is_imported(tmp_path):
    conv, dense, x = both('plain')
    torch.jit.save(torch.jit.trace(conv, x), str(tmp_path / 'traced.pt'))
    free = ({axis: torch.export.Dim.AUTO for axis in (0, 2, 3)},)
    torch.export.save(
        torch.export.export(conv, (x,), dynamic_shapes=free),
        tmp_path / 'exported.pt2',
    )
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', LOADING],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    expected = dense(torch.ones(1, 4, 30, 20, dtype=torch.double)).sum().item()
    assert [*map(float, run.stdout.split())] == pytest.approx([expected] * 2, rel=1e-4)
