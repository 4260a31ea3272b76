"""tools/run_timm.py, which runs timm's scripts."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'run_timm.py'

# What timm's validate.py does with the network and the file.
SCRIPT = """
import argparse
import helper
import timm

parser = argparse.ArgumentParser()
parser.add_argument('--model')
parser.add_argument('--model-kwargs', nargs='*', action=timm.utils.ParseKwargs)
args = parser.parse_args()
model = timm.create_model(args.model, **args.model_kwargs)
print(helper.NAME, __name__, model.num_classes, model.position_training.rate)
"""


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', str(TOOL), *map(str, arguments)],
        capture_output=True,
        text=True,
        **options,
    )


@pytest.mark.timm
def test_script_knows_the_networks(tmp_path):
    (tmp_path / 'helper.py').write_text("NAME = 'beside'\n")
    (tmp_path / 'validate.py').write_text(SCRIPT)
    options = ['--model-kwargs', 'num_classes=7', 'position_rate=2']
    done = run(
        *(tmp_path / 'validate.py', '--model', 'convnext_dcls_tiny', *options),
        cwd=tmp_path,
    )
    assert done.stdout == 'beside __main__ 7 2.0\n', done.stderr


def test_missing_script_is_named():
    done = run('nowhere/validate.py', '--model', 'x')
    assert done.returncode == 1
    assert done.stderr.startswith('error: script nowhere/validate.py does not exist')


@pytest.mark.skipif(find_spec('timm') is not None, reason='timm is here')
def test_missing_timm_is_named(tmp_path):
    (tmp_path / 'validate.py').touch()
    done = run(tmp_path / 'validate.py')
    assert done.returncode == 1
    assert 'error: dcls_mm.timm_models needs timm and torchvision' in done.stderr
