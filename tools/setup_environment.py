"""Set up .venv: the verified set of packages, with mmcv built against its torch.

    python3.11 tools/setup_environment.py

The environment variable STACK chooses another set, in its own folder: 'onedl' has the
maintained forks `onedl-*` in place of OpenMMLab's packages (.venv-onedl); 'oldest' and
'newest' have the oldest and newest torch and Python that are accepted.

It can be run again at any time: it returns at once if nothing has changed, and
continues where it stopped if it was interrupted. It writes to that folder and to
~/.cache/dcls_mm (or $XDG_CACHE_HOME/dcls_mm), where it keeps the built mmcv wheel and
the compiled part of dcls_mm itself.
"""

import argparse
import contextlib
import hashlib
import platform
import shutil
import signal
import subprocess
import sys
import time

import environment
from environment import (
    MMCV,
    PINS_FILES,
    PYTHON,
    ROOT,
    TRITON_FILES,
    VENV,
    VENV_PYTHON,
    mmcv_wheel,
    native_part,
)
from environment.preflight import check_machine
from environment.running import PIP_LOG, clock, last_line, locked, pip, run_logged, tail

STAMP = VENV / 'dcls_mm.stamp'

IS_USABLE = f"""
import sys
from importlib.metadata import files
sys.exit(sys.version_info[:2] != {PYTHON} or not files('pip'))
"""

SHOW_VERSIONS = """
import dcls_mm, torch, mmcv, mmengine, mmdet, mmseg, mmcv.ops
modules = dcls_mm, torch, mmcv, mmengine, mmdet, mmseg
print(', '.join(m.__name__ + ' ' + m.__version__ for m in modules))
"""


def read_pins(paths=PINS_FILES):
    """Read name -> version; 'name==' in a later file removes the name."""
    pins = {}
    for path in paths:
        for line in path.read_text().splitlines():
            name, _, version = line.partition('#')[0].strip().partition('==')
            pins[name] = version
    return {name: version for name, version in pins.items() if version}


def read_tritons():
    lines = (line for path in TRITON_FILES for line in path.read_text().splitlines())
    return [line.partition('==')[2] for line in lines if line.startswith('triton==')]


def fingerprint():
    """Return a digest of what the environment is made from, and where."""
    digest = hashlib.sha256(f'{ROOT} {PYTHON}'.encode())
    ours = ROOT / 'pyproject.toml', ROOT / 'dcls_mm' / 'version.py'
    for path in (*PINS_FILES, *ours):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_ready():
    present = VENV_PYTHON.exists() and STAMP.exists()
    return present and STAMP.read_text() == fingerprint()


def make_venv():
    """Make .venv, unless its Python and pip are there and work."""
    if VENV.exists():
        with contextlib.suppress(OSError):
            command = [VENV_PYTHON, '-c', IS_USABLE]
            if not subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
                drop_half_installed()
                return
        print('      removing it: incomplete, or made by another Python', flush=True)
        shutil.rmtree(VENV)
    VENV.mkdir()
    run_logged('python -m venv', [sys.executable, '-m', 'venv', VENV], PIP_LOG)


def drop_half_installed():
    """Make pip forget what it was installing when killed: it writes RECORD last."""
    for info in VENV.glob('lib/python*/site-packages/*.dist-info'):
        if not (info / 'RECORD').exists():
            shutil.rmtree(info)


def install_packages(pins):
    exact = (f'{name}=={version}' for name, version in pins.items())
    pip('Downloading and installing packages', 'install', '--no-deps', *exact)


def install_torch(version):
    pip('Downloading and installing torch', 'install', f'torch=={version}')


def install_tritons():
    """Put each version of Triton into a folder of its own, outside of sys.path."""
    # A folder named triton would be imported as such by whatever runs in VENV.
    folders = {version: VENV / 'tritons' / version for version in read_tritons()}
    missing = {v: folder for v, folder in folders.items() if not folder.exists()}
    if missing and platform.machine() != 'x86_64':
        print('Triton is left out: its wheels are for x86-64. Its tests are skipped.')
        return
    for version, folder in missing.items():
        print(f'Triton {version}, which only the tests need', flush=True)
        partial = folder.with_name(f'{version}.partial')
        shutil.rmtree(partial, ignore_errors=True)
        options = '--no-deps', '--target', partial, f'triton=={version}'
        pip(f'Downloading and installing triton {version}', 'install', *options)
        partial.rename(folder)


def install_project():
    options = ['--no-deps', '--no-build-isolation']
    pip('Installing dcls_mm', 'install', *options, '--editable', ROOT)
    command = [VENV_PYTHON, '-W', 'ignore', '-c', SHOW_VERSIONS]
    run_logged('Importing the packages', command, PIP_LOG, cwd=VENV)
    print(f'      {last_line(tail(PIP_LOG))}')


def set_up():
    made_from = fingerprint()  # before anybody changes the files meanwhile
    others = read_pins()
    torch, mmcv = others.pop('torch'), others.pop(MMCV)
    steps = (
        (f'making {VENV}', make_venv),
        (f'installing {len(others)} packages', lambda: install_packages(others)),
        (f'installing torch {torch}', lambda: install_torch(torch)),
        (f'installing {MMCV} {mmcv}', lambda: mmcv_wheel.install(mmcv)),
        ('installing dcls_mm, checking all', install_project),
    )
    for number, (text, step) in enumerate(steps, 1):
        start = time.monotonic()
        print(f'[{number}/{len(steps)}] {text}', flush=True)
        step()
        print(f'      done in {clock(time.monotonic() - start)}', flush=True)
    partial = STAMP.with_suffix('.partial')
    partial.write_text(made_from)
    partial.replace(STAMP)


def interrupt(signum, frame):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--triton',
        action='store_true',
        help='also install the versions of Triton that only tests need (1.6 GiB)',
    )
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        if not is_ready():
            check_machine()
            with locked(ROOT):
                # Another set-up may have finished while this one waited.
                if not is_ready():
                    set_up()
        # Not a step of the above: a changed csrc/ needs no other environment.
        with locked(ROOT):
            native_part.build()
        if arguments.triton:
            with locked(ROOT):
                install_tritons()
        print(f'{VENV} is ready')
    except (environment.SetupError, OSError) as error:
        sys.exit(f'The set-up stopped.\n{error}')
    except KeyboardInterrupt:
        sys.exit(f'\nInterrupted. {environment.AGAIN}')


if __name__ == '__main__':
    main()
