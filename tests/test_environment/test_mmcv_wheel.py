"""Building the wheel of mmcv, without compiling mmcv."""

import io
import os
import sys
import tarfile
import zipfile
from types import SimpleNamespace

import pytest
from environment import SetupError, mmcv_wheel, running


@pytest.fixture(autouse=True)
def stock(monkeypatch):
    """Make the tests independent of the environment they run in."""
    monkeypatch.setattr(mmcv_wheel, 'MMCV', 'mmcv')


TRAITS = {
    'torch': '2.13.0+cpu',
    'python': 'cp311',
    'platform': 'linux-x86_64',
    'ops': 'cpu',
    'headers': ['/no/such/folder'],
    'abi': 1,
}


def test_the_key_of_a_wheel_says_what_it_was_built_for():
    key = mmcv_wheel.wheel_key('2.1.0', TRAITS)
    assert key == 'mmcv-2.1.0-torch2.13.0+cpu-cp311-linux-x86_64-cpu'
    other = {
        'torch': '2.13.0+cu130',
        'python': 'cp312',
        'platform': 'linux-aarch64',
        'ops': 'sm90',
    }
    keys = {mmcv_wheel.wheel_key('2.1.0', {**TRAITS, k: v}) for k, v in other.items()}
    assert len(keys | {key, mmcv_wheel.wheel_key('2.1.1', TRAITS)}) == 6


def test_a_gpu_without_nvcc_is_an_error(monkeypatch):
    answer = '{"torch": "2.13.0+cu130", "ops": "sm90", "nvcc": false}'
    result = SimpleNamespace(returncode=0, stdout=answer)
    monkeypatch.setattr(mmcv_wheel.subprocess, 'run', lambda *a, **k: result)
    with pytest.raises(SetupError, match='nvcc.*CUDA_VISIBLE_DEVICES= make env'):
        mmcv_wheel.probe_torch()


def make_wheel(folder):
    path = folder / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl'
    with zipfile.ZipFile(path, 'w') as wheel:
        wheel.writestr('mmcv/_ext.so', os.urandom(5000))
    return path


def test_a_whole_wheel_is_kept(tmp_path):
    wheel = make_wheel(tmp_path)
    assert mmcv_wheel.kept_wheel(tmp_path) == wheel


@pytest.mark.parametrize('damage', ['truncated', 'altered'])
def test_a_damaged_wheel_is_removed(damage, tmp_path):
    wheel = make_wheel(tmp_path)
    content = wheel.read_bytes()
    altered = content[:2000] + bytes([content[2000] ^ 1]) + content[2001:]
    wheel.write_bytes({'truncated': content[:3000], 'altered': altered}[damage])
    assert mmcv_wheel.kept_wheel(tmp_path) is None
    assert not wheel.exists()


def make_archive(path, name, content=b'', **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    with tarfile.open(path, 'w:gz') as tar:
        tar.addfile(member, io.BytesIO(content))


def test_an_archive_is_unpacked(tmp_path):
    make_archive(tmp_path / 'a.tar.gz', 'mmcv-2.1.0/setup.py', b'xxx')
    mmcv_wheel.unpack(tmp_path / 'a.tar.gz', tmp_path)
    assert (tmp_path / 'mmcv-2.1.0' / 'setup.py').read_text() == 'xxx'


@pytest.mark.parametrize(
    'member',
    [
        {'name': '../outside'},
        {'name': '/outside'},
        {'name': 'a', 'type': tarfile.SYMTYPE, 'linkname': '/etc'},
        {'name': 'a', 'type': tarfile.FIFOTYPE},
    ],
    ids=['parent', 'absolute', 'link', 'pipe'],
)
def test_an_archive_that_reaches_out_is_refused(member, tmp_path):
    make_archive(tmp_path / 'a.tar.gz', **member)
    with pytest.raises(SetupError, match='refused'):
        mmcv_wheel.unpack(tmp_path / 'a.tar.gz', tmp_path / 'inside')
    assert not (tmp_path / 'inside').exists()


FAKE_SETUP = """
import os
from setuptools import setup
flags = os.environ.get('CFLAGS', '').split()
if 'NO_HEADERS' in os.environ and '-include' in flags:
    raise SystemExit('ended by a header')
module = 'ops = ' + repr([os.environ.get(n) for n in ('MMCV_WITH_OPS', 'FORCE_CUDA')])
module += ', ' + repr(['-std=c++14', '-std=c++17']) + ', ' + repr('-include' in flags)
open('mmcv.py', 'w').write(module)
setup(name='mmcv', version='2.1.0', py_modules=['mmcv'])
"""


@pytest.fixture
def fake_build(monkeypatch, tmp_path):
    """Build a release of a single module, with the installed pip and setuptools."""
    archive = tmp_path / 'mmcv-2.1.0.tar.gz'
    make_archive(archive, 'mmcv-2.1.0/setup.py', FAKE_SETUP.encode())
    monkeypatch.setattr(running, 'PIP_LOG', tmp_path / 'pip.log')
    monkeypatch.setattr(running, 'VENV_PYTHON', sys.executable)
    monkeypatch.setattr(mmcv_wheel, 'VENV_PYTHON', sys.executable)
    monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path))
    monkeypatch.setenv('CXX', 'true')
    folder = tmp_path / 'cache'
    folder.mkdir()

    def build(torch='2.13.0+cpu'):
        wheel = mmcv_wheel.build('2.1.0', folder, {**TRAITS, 'torch': torch})
        assert mmcv_wheel.kept_wheel(folder) == wheel
        assert {path.name for path in folder.iterdir()} == {wheel.name, 'build.log'}
        with zipfile.ZipFile(wheel) as file:
            return file.read('mmcv.py')

    return build


@pytest.mark.parametrize(
    ('torch', 'standards'),
    [
        ('2.13.0+cpu', b"['-std=c++14', '-std=c++17']"),
        ('2.14.1+cu130', b"['-std=c++20', '-std=c++20']"),
    ],
)
def test_a_source_release_is_fetched_and_built(torch, standards, fake_build):
    assert fake_build(torch) == b"ops = ['1', '0'], " + standards + b', True'


@pytest.mark.parametrize(
    ('name', 'value', 'said'),
    [
        ('CXX', 'false', "Compiling torch's headers"),
        ('NO_HEADERS', '1', 'The build of'),
    ],
    ids=['making them', 'using them'],
)
def test_without_compiled_headers_it_is_built_too(
    name, value, said, fake_build, monkeypatch, capsys
):
    monkeypatch.setenv(name, value)
    assert fake_build().endswith(b', False')
    assert f'{said} failed. ' in capsys.readouterr().out.replace(' mmcv 2.1.0', '')


def test_progress_is_read_from_the_last_line_of_ninja():
    log = (
        'running build_ext\n[1/77] c++ -c a.cpp\nwarning: [76/77] not this\n'
        '[19/77] c++ -c b.cpp\nb.cpp:3: warning'
    )
    shown = mmcv_wheel.ninja_progress(log, elapsed=190)
    assert shown == '19/77 files, 24%, about 9:40 left'
    assert mmcv_wheel.ninja_progress('running build_ext', 5) == 'preparing'
    assert 'linking' in mmcv_wheel.ninja_progress('[77/77] c++ -c c.cpp', 800)


@pytest.mark.parametrize(('gib', 'jobs'), [(1, 1), (5, 2), (64, 8)])
def test_compilers_are_as_many_as_memory_and_cores_allow(gib, jobs, monkeypatch):
    sizes = {'SC_PAGE_SIZE': 4096, 'SC_PHYS_PAGES': gib * 2**30 // 4096}
    monkeypatch.setattr(mmcv_wheel.os, 'sysconf', sizes.get)
    monkeypatch.setattr(mmcv_wheel.os, 'sched_getaffinity', lambda pid: set(range(8)))
    assert mmcv_wheel.build_jobs() == jobs
