"""The build of mmcv, which has no binary release for the torch in .venv.

The wheel is kept in a folder of the cache whose name lists everything it depends on.
The source is compiled there too, so that an interrupted build continues from the files
that ninja has already compiled.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import zipfile

from . import AGAIN, CACHE, MMCV, VENV, VENV_PYTHON, SetupError
from .running import clock, environment, locked, pip, run_logged

BYTES_PER_COMPILER = 2 * 2**30
MINUTES_ON_ONE_CORE = 6

# The first torch whose headers need C++20.
CXX20 = (2, 14)

# As Python itself is compiled, but without debugging symbols, which took 80 of 83 MB.
FLAGS = ['-O3', '-DNDEBUG', '-fwrapv', '-fPIC']

PROBE = """
import json, sys, sysconfig, torch
from torch.utils.cpp_extension import CUDA_HOME, include_paths
gpu = torch.cuda.is_available()
print(json.dumps({
    'torch': torch.__version__,
    'python': 'cp%d%d' % sys.version_info[:2],
    'platform': sysconfig.get_platform(),
    'ops': 'sm%d%d' % torch.cuda.get_device_capability() if gpu else 'cpu',
    'nvcc': CUDA_HOME is not None,
    'headers': [*include_paths(), sysconfig.get_path('include')],
    'abi': int(torch.compiled_with_cxx11_abi()),
}))
"""


def probe_torch():
    """Ask the torch in .venv what a built mmcv depends on."""
    command, variables = [VENV_PYTHON, '-c', PROBE], environment()
    answer = subprocess.run(command, env=variables, stdout=subprocess.PIPE)
    if answer.returncode:
        raise SetupError(f'torch in {VENV} does not work: remove that folder. {AGAIN}')
    traits = json.loads(answer.stdout)
    if traits['ops'] != 'cpu' and not traits['nvcc']:
        raise SetupError(
            'There is a GPU, but the compiler nvcc, which mmcv needs to use it, is '
            f'missing. Install the CUDA toolkit that torch {traits["torch"]} is built '
            'for and set CUDA_HOME to its folder, or do without the GPU: '
            'CUDA_VISIBLE_DEVICES= make env'
        )
    return traits


def wheel_key(version, traits):
    parts = [f'{MMCV}-{version}', f'torch{traits["torch"]}']
    return '-'.join(parts + [traits[name] for name in ('python', 'platform', 'ops')])


def kept_wheel(folder):
    """Return the wheel of an earlier build if it is intact; remove it if not."""
    for wheel in folder.glob('*.whl'):
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(wheel) as file:
            if file.testzip() is None:
                return wheel
        wheel.unlink()
    return None


def unpack(archive, folder):
    """Unpack a source archive if it only has files and folders that lie inside it."""
    # Debian 12's Python 3.11.2 lacks tarfile's own filter='data'.
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            inside = folder.resolve() in (folder / member.name).resolve().parents
            if not inside or not (member.isfile() or member.isdir()):
                raise SetupError(f'{archive} is refused for its member {member.name!r}')
        tar.extractall(folder)


def fetch_source(version, source):
    download = source.with_name('download')
    shutil.rmtree(download, ignore_errors=True)
    options = ['--no-deps', '--no-build-isolation', '--no-binary', MMCV]
    options += ['--dest', download]
    pip('Downloading mmcv', 'download', *options, f'{MMCV}=={version}')
    (archive,) = download.glob('*.tar.gz')
    unpack(archive, download)
    (unpacked,) = (path for path in download.iterdir() if path.is_dir())
    unpacked.rename(source)
    shutil.rmtree(download)


def build_jobs():
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return max(1, min(len(os.sched_getaffinity(0)), memory // BYTES_PER_COMPILER))


def ninja_progress(text, elapsed):
    """Describe the progress from ninja's last '[done/total]' in the log of a build."""
    counts = re.findall(r'^\[(\d+)/(\d+)\] ', text, re.MULTILINE)
    if not counts:
        return 'preparing'
    done, total = map(int, counts[-1])
    if done == total:
        return f'{total}/{total} files, linking'
    left = clock(elapsed / done * (total - done))
    return f'{done}/{total} files, {100 * done // total}%, about {left} left'


def raise_standard(source):
    """Make mmcv compile as C++20: its own C++14 or 17 would override CFLAGS."""
    setup = source / 'setup.py'
    setup.write_text(re.sub(r'-std=c\+\+1[47]', '-std=c++20', setup.read_text()))


def precompile(source, flags, traits, standard, log):
    """Precompile torch's headers and return the compiler flags that use the result.

    Without this, reading them is nine tenths of the work of compiling one of mmcv's
    files. ninja does not count the result among a file's dependencies, so an
    interrupted build continues although the headers are compiled again.
    """
    header = source / 'torch.hpp'
    header.write_text('#include <torch/types.h>\n')
    command = [*shlex.split(os.environ.get('CXX') or 'c++'), *flags, f'-std={standard}']
    command += [f'-I{folder}' for folder in traits['headers']]
    command += ['-x', 'c++-header', header, '-o', f'{header}.gch']
    what = "Compiling torch's headers"
    run_logged(what, command, log, progress=lambda text, elapsed: what.lower())
    return ['-include', str(header), '-Werror=invalid-pch']


def build(version, folder, traits):
    source, log = folder / 'source', folder / 'build.log'
    if not source.exists():
        fetch_source(version, source)
    standard = 'c++17'
    if tuple(map(int, traits['torch'].split('.')[:2])) >= CXX20:
        standard = 'c++20'
        raise_standard(source)
    jobs = build_jobs()
    minutes = MINUTES_ON_ONE_CORE // jobs
    print(f'      compiling, about {minutes} minutes the first time', flush=True)
    print(f'      log: {log}', flush=True)
    flags = [*FLAGS, f'-D_GLIBCXX_USE_CXX11_ABI={traits["abi"]}']

    def compile_all(flags):
        variables = environment(
            MMCV_WITH_OPS='1',
            FORCE_CUDA='0' if traits['ops'] == 'cpu' else '1',
            MAX_JOBS=str(jobs),
            CFLAGS=shlex.join(flags),
        )
        command = [VENV_PYTHON, 'setup.py', 'bdist_wheel']
        what = f'The build of {MMCV} {version}'
        run_logged(what, command, log, ninja_progress, cwd=source, env=variables)

    try:
        compile_all(flags + precompile(source, flags, traits, standard, log))
    except SetupError as error:
        print(f'      {str(error).splitlines()[0]}', flush=True)
        print("      Continuing without precompiling torch's headers", flush=True)
        compile_all(flags)
    (built,) = source.glob('dist/*.whl')
    wheel = built.replace(folder / built.name)
    shutil.rmtree(source)
    return wheel


def install(version):
    traits = probe_torch()
    folder = CACHE / wheel_key(version, traits)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        wheel = kept_wheel(folder) or build(version, folder, traits)
    # --force-reinstall: the same version may be there, built against another torch.
    options = ['--no-deps', '--force-reinstall']
    pip('Installing mmcv', 'install', *options, wheel)
