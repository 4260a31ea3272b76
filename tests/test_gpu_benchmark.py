"""The script for a GPU, rehearsed on a CPU without OpenMMLab."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import assert_close

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / 'benchmarks' / 'gpu'
STAGES = [
    'correctness',
    'convolutions',
    'backbones',
    'layers',
    'constructions',
    'plans',
]

# `make test` puts it there, outside of sys.path.
TRITON = Path(sys.prefix) / 'tritons' / '3.9.0'

# Python imports this at the start of every process, if it is on the path.
WITHOUT_OPENMMLAB = """
import sys
sys.modules.update(dict.fromkeys(['mmengine', 'mmcv', 'mmdet', 'mmseg']))
"""


def run(folder, *command):
    (folder / 'sitecustomize.py').write_text(WITHOUT_OPENMMLAB)
    paths = [str(folder), os.environ.get('PYTHONPATH', ''), str(TRITON)]
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={
            **os.environ,
            'PYTHONPATH': os.pathsep.join(paths),
            'OMP_NUM_THREADS': '1',
        },
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_without_a_gpu_it_says_so(tmp_path):
    done = run(tmp_path, SCRIPTS / 'run.py')
    assert done.returncode == 2
    assert done.stderr.startswith('There is no CUDA device that torch can use: run')
    assert done.stderr.count('\n') == 1
    assert not (tmp_path / 'gpu.json').exists()


@pytest.fixture(scope='module')
def rehearsed(tmp_path_factory):
    if find_spec('triton') is None and not TRITON.is_dir():
        pytest.skip(f'needs triton, such as in {TRITON}')
    folder = tmp_path_factory.mktemp('gpu')
    return folder, run(folder, SCRIPTS / 'run.py', '--rehearse', '--quick')


def test_every_stage_is_rehearsed(rehearsed):
    folder, done = rehearsed
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((folder / 'gpu.json').read_text())
    assert content['rehearsal'] is True
    assert [stage['name'] for stage in content['stages']] == STAGES
    for stage in content['stages']:
        assert (stage['failures'], stage['left_out']) == ([], [])
        assert all(table['rows'] for table in stage['tables']) and stage['tables']
    (tests,) = content['stages'][0]['tables'][0]['rows']
    assert tests['passed'] > 40 and tests['failed'] == 0


def test_a_rehearsal_is_not_recorded(rehearsed):
    folder, _ = rehearsed
    done = run(folder, SCRIPTS / 'tables.py', 'gpu.json')
    assert done.returncode == 1 and not done.stdout
    assert 'is a rehearsal on a CPU' in done.stderr


@pytest.mark.parametrize('content', [None, '', 'no JSON'])
def test_a_file_that_is_no_run(tmp_path, content):
    if content is not None:
        (tmp_path / 'gpu.json').write_text(content)
    done = run(tmp_path, SCRIPTS / 'tables.py', 'gpu.json')
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert 'gpu.json is not what `run.py --out` has written' in done.stderr


def test_the_tables_are_those_that_were_printed(rehearsed):
    folder, printed = rehearsed
    done = run(folder, SCRIPTS / 'tables.py', 'gpu.json', '--rehearsed')
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith('|')]
    assert len(lines) > 30
    assert lines == [x for x in printed.stdout.splitlines() if x.startswith('|')]


BROKEN = """
import sys
sys.path.insert(0, {scripts!r})
import run
names = 'raises', 'dies', 'constructions'
run.STAGES = [run.Stage(name, 'timings', 5) for name in names]
run.paths.HERE = run.Path({folder!r})
sys.argv = ['run.py', '--rehearse', '--quick']
sys.exit(run.main())
"""
# Stands where stage.py is and finds the two modules beside it.
STAGE = """
import sys
sys.path.insert(0, {scripts!r})
import stage
stage.main()
"""
HALF_A_TABLE = """
import os
def measure(device, results, args):
    results.table('Half')
    results.row(dict(first=1))
    {end}
"""


def test_a_stage_that_fails_keeps_what_it_had(tmp_path):
    """It is reported with its traceback, and the next stages run."""
    names = dict(scripts=str(SCRIPTS), folder=str(tmp_path))
    (tmp_path / 'raises.py').write_text(HALF_A_TABLE.format(end='1 / 0'))
    (tmp_path / 'dies.py').write_text(HALF_A_TABLE.format(end='os.abort()'))
    (tmp_path / 'stage.py').write_text(STAGE.format(**names))
    done = run(tmp_path, '-c', BROKEN.format(**names))
    assert done.returncode == 1, done.stdout + done.stderr
    stages = json.loads((tmp_path / 'gpu.json').read_text())['stages']
    first, second, third = stages
    assert (
        first['tables']
        == second['tables']
        == [dict(title='Half', rows=[dict(first=1)])]
    )
    assert 'ZeroDivisionError: division by zero' in first['failures'][0]['why']
    assert second['failures'] == [dict(what='dies', why='It ended with status -6.')]
    assert third['failures'] == [] and third['tables']


def test_its_network_is_the_backbone(monkeypatch):
    """For the same weights ConvNeXtDCLS gives the same outputs and gradients."""
    pytest.importorskip('mmcv')
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from convnext import ConvNeXt

    from dcls_mm import ConvNeXtDCLS, DCLSConv2d

    depths, dims = (1, 2, 1, 1), (8, 12, 16, 20)
    spaced = dict(kernel_count=6, dilated_kernel_size=9)
    model = ConvNeXtDCLS(
        dict(depths=depths, dims=dims),
        depthwise_cfg=dict(type='DCLSConv2d', **spaced),
    )
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.02 if name.endswith('weight') else 1.0)
    network = ConvNeXt(
        depths,
        dims,
        lambda channels: DCLSConv2d(
            channels, channels, padding=4, groups=channels, **spaced
        ),
    )
    network.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 64, 96)
    outputs, expected = network(x), model(x)
    for actual, y in zip(outputs, expected, strict=True):
        assert_close(actual, y)
    seeds = [torch.randn_like(y) for y in expected]
    names = dict(model.named_parameters())
    assert list(names) == list(dict(network.named_parameters()))
    found = torch.autograd.grad(outputs, list(network.parameters()), seeds)
    wanted = torch.autograd.grad(expected, list(names.values()), seeds)
    for actual, exact in zip(found, wanted):
        assert_close(actual, exact, factor=20)
