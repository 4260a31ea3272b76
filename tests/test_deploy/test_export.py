"""Recorded models against the originals, at sizes other than those recorded."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from scenes import write_demo

from dcls_mm.apis.export import export_model
from dcls_mm.checks.errors import ConfigError
from dcls_mm.deploy.pooling import UnrolledPooling
from dcls_mm.functional import native_code


def load(config, checkpoint):
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(torch.load(checkpoint)['state_dict'])
    return model


def run_onnx(path, images):
    runtime = pytest.importorskip('onnxruntime')
    session = runtime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return list(map(torch.from_numpy, session.run(None, {'images': images.numpy()})))


RUN = {
    'onnx': run_onnx,
    'torchscript': lambda path, images: torch.jit.load(path)(images),
    'torch-export': lambda path, images: torch.export.load(path).module()(images),
}

# What tells the operators of a file.
OPERATORS = {
    'torchscript': lambda path: str(torch.jit.load(path).inlined_graph),
    'torch-export': lambda path: str(torch.export.load(path).graph),
}


@pytest.mark.parametrize('format', ['onnx', 'torchscript'])
def test_segmentor(format, tmp_path):
    if format == 'onnx':
        pytest.importorskip('onnxscript')
        if torch.__version__ < (2, 7):
            pytest.skip('ONNX of torch 2.6 cannot resize to the size of its input')
    config, checkpoint = write_demo(tmp_path, 'mmseg', count=1)
    out = str(tmp_path / 'model')
    assert f'model as {format}' in export_model(config, checkpoint, out, format)
    model = load(config, checkpoint)
    for shape in ((1, 3, 96, 160), (3, 3, 192, 128)):
        images = torch.randn(shape)
        (logits,) = RUN[format](out, images)
        with torch.no_grad():
            expected = F.interpolate(model(images), shape[2:], mode='bilinear')
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


def test_detector_gives_what_its_dense_layers_give(tmp_path):
    config, checkpoint = write_demo(tmp_path, 'mmdet', count=1)
    out = str(tmp_path / 'model.pt')
    export_model(config, checkpoint, out, 'torchscript')
    model = load(config, checkpoint)
    images = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        features = model.extract_feat(images)
        scores, deltas = model.rpn_head(features)
    expected = [*features, *scores, *deltas]
    outputs = torch.jit.load(out)(images)
    assert len(outputs) == len(expected)
    for actual, wanted in zip(outputs, expected):
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-4)


def test_backbone(tmp_path):
    config, checkpoint = write_demo(tmp_path, 'mmseg', count=1)
    out = str(tmp_path / 'backbone.pt2')
    export_model(config, checkpoint, out, 'torch-export', part='backbone')
    images = torch.randn(2, 3, 128, 96)
    with torch.no_grad():
        expected = load(config, checkpoint).backbone(images)
    found = RUN['torch-export'](out, images)
    assert len(found) == len(expected) == 4
    for actual, wanted in zip(found, expected):
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('format', ['torchscript', 'torch-export'])
def test_sparse_backbone(format, tmp_path):
    if native_code.missing() is not None:
        pytest.skip(native_code.missing())
    config, checkpoint = write_demo(tmp_path, 'mmseg', count=1)
    out = str(tmp_path / 'backbone.pt2')
    said = export_model(config, checkpoint, out, format, part='backbone', form='sparse')
    assert 'folded layers are sparse, so import dcls_mm before loading it' in said
    assert 'dcls_mm' in OPERATORS[format](out)
    images = torch.randn(2, 3, 128, 96)
    with torch.no_grad():
        expected = load(config, checkpoint).backbone(images)
    for actual, wanted in zip(RUN[format](out, images), expected):
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-4)


def test_sparse_needs_the_compiled_part(tmp_path, monkeypatch):
    monkeypatch.setattr('dcls_mm.functional.native_code.missing', lambda: 'not built')
    with pytest.raises(ConfigError, match='--form sparse: not built'):
        export_model('config.py', 'x.pth', 'x.pt', 'torchscript', form='sparse')


@pytest.mark.parametrize('size', [(1, 1), (6, 6), (4, 9), (13, 7)])
@pytest.mark.parametrize('windows', [(1, 2), (3, 3), (6, 5)])
def test_unrolled_pooling(size, windows):
    x = torch.randn(2, 3, *size)
    expected = F.adaptive_avg_pool2d(x, windows)
    torch.testing.assert_close(UnrolledPooling(windows)(x), expected)


def test_files_are_not_overwritten(tmp_path):
    config, checkpoint = write_demo(tmp_path, 'mmseg', count=1)
    (tmp_path / 'there.pt').write_text('mine')
    with pytest.raises(ConfigError, match='there.pt exists; remove it'):
        export_model(config, checkpoint, str(tmp_path / 'there.pt'), 'torchscript')
    assert (tmp_path / 'there.pt').read_text() == 'mine'


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match='--out .*new/: must be the name of a file'):
        export_model('config.py', 'x.pth', f'{tmp_path}/new/', 'torchscript')
    assert not any(tmp_path.iterdir())


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr('dcls_mm.apis.export.find_spec', lambda name: None)
    with pytest.raises(ConfigError, match='--format onnx needs: pip install onnx onnx'):
        export_model('config.py', 'x.pth', 'x.onnx', 'onnx')
