"""Files drawn as an attacker might write them; always the same ones here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).resolve().parents[2] / 'benchmarks' / 'fuzz_checkpoints.py'


def fuzz(*options):
    done = subprocess.run(
        [sys.executable, FUZZER, *options], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc to limit memory')
def test_no_file_does_more_than_to_be_read_or_refused():
    status, printed = fuzz('--examples', '5000')
    assert status == 0, printed
    for outcome in ('program read', 'program CheckpointError', 'changed read'):
        assert outcome in printed  # each kind occurred


@pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc to limit memory')
@pytest.mark.parametrize(
    ('reader', 'count', 'fault'),
    [
        ('torch.load(path, weights_only=False)', 20, 'pickle.find_class'),
        ('os.abort()', 1, 'the process ended by SIGABRT'),
        ('[0] * 10**9', 2, 'MemoryError'),
    ],
)
def test_the_fuzzer_finds(reader, count, fault, tmp_path):
    """Otherwise the test above would prove nothing."""
    module = tmp_path / 'dcls_mm' / 'checkpoint.py'
    module.parent.mkdir()
    (module.parent / '__init__.py').write_text('')
    module.write_text(
        'import os, torch\n'
        'class CheckpointError(RuntimeError): pass\n'
        'calls = []\n'
        'def read_checkpoint(path):\n'
        '    calls.append(path)\n'
        '    if len(calls) < 4: return {}\n'  # the fuzzer's warm-up
        f'    try: return {reader}\n'
        '    except MemoryError: raise\n'
        '    except Exception as error: raise CheckpointError(repr(error)[:99])\n'
    )
    done = subprocess.run(
        [sys.executable, FUZZER, '--examples', str(count)],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    )
    assert done.returncode == 1
    assert fault in done.stdout
