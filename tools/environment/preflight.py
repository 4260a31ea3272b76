"""Is this machine fit for the set-up? Each check returns what is wrong, or None."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from . import CACHE, PYTHON, VENV, SetupError

GIB = 2**30
# A finished .venv with the CPU build of torch takes 1.5 GiB, compiling mmcv 0.4 GiB.
NEEDS = ((VENV, 2 * GIB), (CACHE, 1 * GIB))

NAME = 'python{}.{}'.format(*PYTHON)


def system_problem():
    if sys.platform.startswith('linux'):
        return None
    return (
        f'The verified set is for Linux, this is {sys.platform}. In an environment '
        "of your own: pip install -e '.[all]'"
    )


def python_problem():
    found = sys.version_info[:2]
    if found == PYTHON:
        return None
    wanted, found = ('.'.join(map(str, version)) for version in (PYTHON, found))
    return (
        f'Python {wanted} is needed, this set of packages is for no other; this is '
        f'Python {found} ({sys.executable}). Name the right one: make PYTHON={NAME}'
    )


def venv_problem():
    if all(importlib.util.find_spec(name) for name in ('venv', 'ensurepip')):
        return None
    return (
        f'{sys.executable} lacks the module venv or ensurepip and cannot make a '
        f'virtual environment. On Debian: apt install {NAME}-venv'
    )


def headers_problem():
    header = Path(sysconfig.get_path('include'), 'Python.h')
    if header.is_file():
        return None
    return (
        f'The headers of Python are missing ({header}); mmcv is compiled with them. '
        f'On Debian: apt install {NAME}-dev'
    )


def compiler_problem():
    compiler = os.environ.get('CXX') or 'c++'
    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    try:
        subprocess.run([*shlex.split(compiler), '--version'], check=True, **quiet)
    except (OSError, subprocess.CalledProcessError):
        return (
            f'The C++ compiler {compiler!r} does not run; mmcv is compiled with it. '
            'On Debian: apt install g++. Or name another compiler in CXX.'
        )
    return None


def disk_problem():
    """Adds up what `NEEDS` says for folders of the same file system."""
    totals = {}
    for folder, size in NEEDS:
        while not folder.exists():
            folder = folder.parent
        device = folder.stat().st_dev
        totals[device] = folder, size + totals.get(device, (folder, 0))[1]
    for folder, size in totals.values():
        free = shutil.disk_usage(str(folder)).free
        if free < size:
            return (
                f'{size / GIB:.1f} GiB of free disk space are needed at {folder} (a '
                f'CUDA build of torch takes about 6 GiB more); {free / GIB:.1f} GiB '
                'are free.'
            )
    return None


CHECKS = (
    system_problem,
    python_problem,
    venv_problem,
    headers_problem,
    compiler_problem,
    disk_problem,
)


def check_machine():
    """Raises a SetupError with one sentence for each thing that is unfit."""
    problems = [problem for problem in (check() for check in CHECKS) if problem]
    if problems:
        raise SetupError('\n'.join(problems))
