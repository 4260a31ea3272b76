"""Files of safetensors: what they hold loads, and damaged ones are refused."""

import json
import struct
import sys
from collections import OrderedDict

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.checkpoint import CheckpointError, DamagedCheckpointError, read_checkpoint
from dcls_mm.checkpoint.mmengine_loaders import as_data

safetensors = pytest.importorskip('safetensors.torch')
SMALL = dict(arch=dict(depths=[1, 2], dims=[8, 12]), out_indices=(0, 1))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'weights.safetensors'
    weights = dict(b=torch.randn(2, 3), a=torch.arange(4, dtype=torch.bfloat16))
    safetensors.save_file(weights, path, metadata={'format': 'pt'})
    return path


def written(path, header: dict | bytes, data: bytes = b''):
    """Write a file by hand: the length of the header, the header, the data."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(header)) + header + data)
    return path


def test_reads_what_was_written(file):
    read = read_checkpoint(str(file))
    assert type(read) is OrderedDict and list(read) == ['a', 'b']
    assert read['a'].dtype == torch.bfloat16 and read['a'].tolist() == [0, 1, 2, 3]
    assert read['b'].shape == (2, 3)
    assert read_checkpoint(str(file), torch.device('meta'))['b'].is_meta


def test_of_a_file_made_by_hand(tmp_path):
    header = {'x': dict(dtype='F32', shape=[2], data_offsets=[0, 8])}
    path = written(tmp_path / 'w.safetensors', header, struct.pack('<2f', 1, 2.5))
    assert read_checkpoint(str(path))['x'].tolist() == [1, 2.5]


def test_mmengine_reads_them_too(file):
    assert CheckpointLoader.load_checkpoint(str(file), 'cpu')['b'].shape == (2, 3)
    with as_data():
        read = CheckpointLoader.load_checkpoint(str(file), 'cpu')
    assert read['b'].shape == (2, 3)


def test_checksum(file):
    with pytest.raises(DamagedCheckpointError, match='has the SHA-256'):
        read_checkpoint(str(file), sha256='0' * 64)


@pytest.mark.parametrize('length', [0, 4, 8, 20, -1])
def test_truncated(file, length):
    whole = file.read_bytes()
    file.write_bytes(whole[:length])
    with pytest.raises(DamagedCheckpointError, match='weights.safetensors is damaged'):
        read_checkpoint(str(file))


TENSOR = dict(dtype='F32', shape=[2], data_offsets=[0, 8])


@pytest.mark.parametrize(
    ('header', 'data'),
    [
        (b'{', b''),
        (b'[]', b''),
        (b'{"x": 1}', b''),
        ({'x': TENSOR}, bytes(7)),
        ({'x': TENSOR}, bytes(9)),
        ({'x': dict(TENSOR, shape=[3])}, bytes(8)),
        ({'x': dict(TENSOR, shape=[2**62, 4])}, bytes(8)),
        ({'x': dict(TENSOR, dtype='os.system')}, bytes(8)),
        ({'x': TENSOR, 'y': TENSOR}, bytes(8)),  # overlapping
        ({'x': dict(TENSOR, data_offsets=[8, 16])}, bytes(16)),  # a hole
        ({'x': TENSOR, '__metadata__': {'a': 1}}, bytes(8)),
    ],
)
def test_changed_files(tmp_path, header, data):
    path = written(tmp_path / 'w.safetensors', header, data)
    with pytest.raises(DamagedCheckpointError, match='w.safetensors is damaged'):
        read_checkpoint(str(path))


def test_a_header_longer_than_the_file(tmp_path):
    path = tmp_path / 'w.safetensors'
    path.write_bytes(struct.pack('<Q', 2**63) + b'{}')
    with pytest.raises(DamagedCheckpointError, match='is damaged'):
        read_checkpoint(str(path))


def test_a_pickle_under_that_name_is_not_read(tmp_path):
    torch.save({'a': torch.ones(1)}, tmp_path / 'w.safetensors')
    with pytest.raises(DamagedCheckpointError, match='is damaged'):
        read_checkpoint(str(tmp_path / 'w.safetensors'))


def test_other_map_locations(file):
    with pytest.raises(CheckpointError, match='map_location must be one or its name'):
        read_checkpoint(str(file), {'cpu': 'cpu'})


def test_without_the_package(file, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(CheckpointError, match='pip install safetensors'):
        read_checkpoint(str(file))


def test_weights_of_a_backbone(tmp_path):
    source = ConvNeXtDCLS(**SMALL)
    weights = {key: value.clone() for key, value in source.state_dict().items()}
    safetensors.save_file(weights, tmp_path / 'w.safetensors')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'w.safetensors'))
    loaded = ConvNeXtDCLS(**SMALL, init_cfg=init_cfg)
    loaded.init_weights()
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, weights[key])
