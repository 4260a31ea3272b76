"""The pins, the steps and the stamp; nothing is installed here."""

import contextlib
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import setup_environment
from environment import MMCV, STACKS, SetupError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from dcls_mm._versions import SUPPORTED
from dcls_mm.functional.triton_kernels import LEAST_VERSION

ROOT = Path(__file__).resolve().parents[2]


def test_the_lock_holds_every_dependency_of_every_pin():
    pins = setup_environment.read_pins()
    assert pins['torch'] and pins[MMCV]
    for name, version in pins.items():
        assert canonicalize_name(name) == name
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            pytest.skip(f'{name} is not installed: not the verified environment')
        if found.version.partition('+')[0] != version:
            pytest.skip(f'{name} {found.version}: not the verified environment')
        # torch brings its own dependencies, so the CUDA ones are not pinned.
        requirements = [] if name == 'torch' else map(Requirement, found.requires or [])
        for requirement in requirements:
            if requirement.marker and not requirement.marker.evaluate({'extra': ''}):
                continue
            needed = canonicalize_name(requirement.name)
            if needed == 'opencv-python':
                needed = 'opencv-python-headless'
            if needed in ('opendatalab', 'pip'):  # explained in the file; in every venv
                continue
            assert needed in pins, f'{name} needs {requirement}'
            assert requirement.specifier.contains(pins[needed]), f'{name}: {needed}'


def test_pins_are_read_without_comments(tmp_path):
    path = tmp_path / 'pins.txt'
    path.write_text('# a comment\n\ntorch==2.13.0\nmmcv==2.1.0  # why\n')
    pins = {'torch': '2.13.0', 'mmcv': '2.1.0'}
    assert setup_environment.read_pins([path]) == pins


def test_pins_of_a_later_file_replace_others(tmp_path):
    paths = [tmp_path / 'first.txt', tmp_path / 'second.txt']
    paths[0].write_text('torch==2.13.0\nmmcv==2.1.0\nsix==1.0\n')
    paths[1].write_text('mmcv==\nonedl-mmcv==2.3.6\nsix==2.0\n')
    pins = {'torch': '2.13.0', 'onedl-mmcv': '2.3.6', 'six': '2.0'}
    assert setup_environment.read_pins(paths) == pins


# No stack has these; dcls_mm works with what users install.
OPTIONAL = ['mmrotate']


@pytest.mark.parametrize('name', STACKS)
def test_every_stack_has_one_provider_of_each_module(name):
    stack = STACKS[name]
    pins = setup_environment.read_pins(
        ROOT / 'requirements' / file for file in stack.pins_files
    )
    assert stack.mmcv in pins
    for module, providers in SUPPORTED.items():
        if module in OPTIONAL:
            continue
        (provider,) = providers.keys() & pins.keys()
        low, below = providers[provider]
        assert Version(low) <= Version(pins[provider]) < Version(below), module


def test_unknown_stack_is_named():
    command = [sys.executable, ROOT / 'tools' / 'setup_environment.py']
    done = subprocess.run(
        command, env={**os.environ, 'STACK': 'x'}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"STACK must be one of {', '.join(STACKS)}, got 'x'\n"


def test_the_oldest_stack_has_the_oldest_versions_that_are_accepted():
    files = STACKS['oldest'].pins_files
    pins = setup_environment.read_pins(ROOT / 'requirements' / file for file in files)
    for module, ranges in SUPPORTED.items():
        if module in OPTIONAL:
            continue
        (name,) = ranges.keys() & pins.keys()
        assert Version(pins[name]) == Version(ranges[name][0]), name
    # The distribution is missing in a checkout that is not installed.
    with contextlib.suppress(metadata.PackageNotFoundError):
        python = '.'.join(map(str, STACKS['oldest'].python))
        assert metadata.metadata('dcls_mm')['Requires-Python'] == f'>={python}'


@pytest.mark.parametrize('name', STACKS)
def test_make_takes_the_python_of_the_stack(name):
    command = ['make', '--no-print-directory', 'help', f'STACK={name}']
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    python = '.'.join(map(str, STACKS[name].python))
    assert f'the python{python} to make {STACKS[name].venv} with' in shown


@pytest.fixture
def clone(monkeypatch, tmp_path):
    """Make a clone whose steps only record that they ran."""
    venv = tmp_path / '.venv'
    paths = {
        'ROOT': tmp_path,
        'VENV': venv,
        'VENV_PYTHON': venv / 'bin' / 'python',
        'STAMP': venv / 'dcls_mm.stamp',
    }
    for name, path in paths.items():
        monkeypatch.setattr(setup_environment, name, path)
    (tmp_path / 'dcls_mm').mkdir()
    (tmp_path / 'dcls_mm' / 'version.py').write_text("__version__ = '0'")
    (tmp_path / 'pyproject.toml').touch()
    pins_file = tmp_path / 'verified.txt'
    pins_file.write_text('torch==2.13.0\nmmcv==2.1.0\nnumpy==2.3.5\n')
    monkeypatch.setattr(setup_environment, 'PINS_FILES', [pins_file])
    monkeypatch.setattr(setup_environment, 'MMCV', 'mmcv')
    done = []

    def make_venv():
        paths['VENV_PYTHON'].parent.mkdir(parents=True, exist_ok=True)
        paths['VENV_PYTHON'].touch()
        done.append('venv')

    def step(name):
        return lambda *arguments: done.append(name)

    monkeypatch.setattr(setup_environment, 'make_venv', make_venv)
    monkeypatch.setattr(setup_environment, 'install_packages', step('packages'))
    monkeypatch.setattr(setup_environment, 'install_torch', step('torch'))
    monkeypatch.setattr(setup_environment.mmcv_wheel, 'install', step('mmcv'))
    monkeypatch.setattr(setup_environment, 'install_tritons', step('triton'))
    monkeypatch.setattr(setup_environment, 'install_project', step('project'))
    monkeypatch.setattr(setup_environment.native_part, 'build', step('native'))
    monkeypatch.setattr(setup_environment, 'check_machine', step('check'))
    monkeypatch.setattr(setup_environment.signal, 'signal', lambda *a: None)
    monkeypatch.setattr(sys, 'argv', ['setup_environment.py'])
    return SimpleNamespace(**paths, pins_file=pins_file, done=done)


ALL_STEPS = ['check', 'venv', 'packages', 'torch', 'mmcv', 'project', 'native']


def test_a_second_run_only_asks_for_the_compiled_part(clone, capsys):
    setup_environment.main()
    assert clone.done == ALL_STEPS
    pins = setup_environment.read_pins()
    assert f'[3/5] installing torch {pins["torch"]}\n' in capsys.readouterr().out
    setup_environment.main()
    assert clone.done == [*ALL_STEPS, 'native']
    assert capsys.readouterr().out == f'{clone.VENV} is ready\n'


@pytest.mark.parametrize(
    'name', ['verified.txt', 'pyproject.toml', 'dcls_mm/version.py']
)
def test_a_change_of_what_it_is_made_from_sets_up_again(name, clone):
    setup_environment.main()
    with open(clone.ROOT / name, 'a') as file:
        file.write('\n')
    assert not setup_environment.is_ready()
    setup_environment.main()
    assert clone.done == 2 * ALL_STEPS


def test_a_venv_without_python_is_not_ready(clone):
    setup_environment.main()
    clone.VENV_PYTHON.unlink()
    clone.VENV_PYTHON.symlink_to('/no/such/python')
    assert not setup_environment.is_ready()


@pytest.mark.parametrize('stop', [KeyboardInterrupt, SetupError('pip failed')])
def test_a_stopped_run_is_continued(stop, clone, monkeypatch):
    def fail(*arguments):
        raise stop

    with monkeypatch.context() as broken:
        broken.setattr(setup_environment, 'install_packages', fail)
        with pytest.raises(SystemExit, match='Interrupted|pip failed') as error:
            setup_environment.main()
    assert isinstance(error.value.code, str)
    assert not setup_environment.is_ready()
    setup_environment.main()
    assert setup_environment.is_ready()


@pytest.mark.parametrize('program', [None, '#!/bin/sh\nexit 1\n', 'not a program'])
def test_a_venv_that_does_not_work_is_made_anew(program, monkeypatch, tmp_path):
    venv = tmp_path / '.venv'
    monkeypatch.setattr(setup_environment, 'VENV', venv)
    monkeypatch.setattr(setup_environment, 'VENV_PYTHON', venv / 'bin' / 'python')
    made = []
    monkeypatch.setattr(setup_environment, 'run_logged', lambda *a: made.append(a))
    (venv / 'bin').mkdir(parents=True)
    if program:
        (venv / 'bin' / 'python').write_text(program)
        (venv / 'bin' / 'python').chmod(0o755)
    setup_environment.make_venv()
    assert list(venv.iterdir()) == []
    assert len(made) == 1


def test_pip_forgets_what_it_installed_by_halves(monkeypatch, tmp_path):
    monkeypatch.setattr(setup_environment, 'VENV', tmp_path)
    packages = tmp_path / 'lib' / 'python3.11' / 'site-packages'
    for name in ('whole-1.dist-info', 'half-1.dist-info'):
        (packages / name).mkdir(parents=True)
        (packages / name / 'METADATA').touch()
    (packages / 'whole-1.dist-info' / 'RECORD').touch()
    setup_environment.drop_half_installed()
    assert [path.name for path in packages.iterdir()] == ['whole-1.dist-info']


def test_triton_is_installed_where_it_is_asked_for(clone, monkeypatch):
    monkeypatch.setattr(setup_environment.sys, 'argv', ['setup', '--triton'])
    setup_environment.main()
    assert clone.done == [*ALL_STEPS, 'triton']


def test_each_version_of_triton_gets_a_whole_folder(monkeypatch, tmp_path):
    triton_file = tmp_path / 'triton.txt'
    triton_file.write_text('# a comment\ntriton==1.0\ntriton==2.0\n')
    monkeypatch.setattr(setup_environment, 'TRITON_FILES', [triton_file])
    monkeypatch.setattr(setup_environment, 'VENV', tmp_path)
    monkeypatch.setattr(setup_environment.platform, 'machine', lambda: 'x86_64')
    installed = []

    def pip(what, *arguments):
        *options, target, requirement = arguments
        assert options == ['install', '--no-deps', '--target']
        assert not target.exists()
        (target / 'triton').mkdir(parents=True)
        if requirement in installed:
            raise SetupError('pip failed')
        installed.append(requirement)

    monkeypatch.setattr(setup_environment, 'pip', pip)
    setup_environment.install_tritons()
    assert installed == ['triton==1.0', 'triton==2.0']
    shutil.rmtree(tmp_path / 'tritons' / '2.0')
    with pytest.raises(SetupError):
        setup_environment.install_tritons()
    folders = tmp_path / 'tritons'
    assert (folders / '1.0' / 'triton').is_dir() and not (folders / '2.0').exists()
    installed.clear()
    setup_environment.install_tritons()
    assert installed == ['triton==2.0'] and (folders / '2.0' / 'triton').is_dir()
    assert not (folders / '2.0.partial').exists()
    # It would be imported as triton by whatever runs in .venv.
    assert not (tmp_path / 'triton').exists()


def test_triton_is_left_out_where_it_has_no_wheel(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(setup_environment, 'VENV', tmp_path)
    monkeypatch.setattr(setup_environment.platform, 'machine', lambda: 'aarch64')
    if not setup_environment.read_tritons():
        pytest.skip('this stack has no versions of triton')
    setup_environment.install_tritons()
    assert not list(tmp_path.iterdir())
    assert 'left out: its wheels are for x86-64' in capsys.readouterr().out


def test_the_oldest_version_of_triton_is_the_oldest_that_is_accepted():
    versions = setup_environment.read_tritons()
    if not versions:
        pytest.skip('this stack has no versions of triton')
    assert Version(versions[0]).release[:2] == LEAST_VERSION
    assert sorted(versions, key=Version) == versions


def test_the_script_ends_with_a_message_and_touches_nothing(tmp_path):
    for name in (
        'tools/setup_environment.py',
        'requirements/verified.txt',
        'requirements/triton.txt',
        'pyproject.toml',
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / 'tools/environment', tmp_path / 'tools/environment')
    before = {path for path in tmp_path.rglob('*') if '__pycache__' not in str(path)}
    run = subprocess.run(
        [sys.executable, 'tools/setup_environment.py'],
        cwd=tmp_path,
        env={**os.environ, 'CXX': 'no-such-compiler', 'XDG_CACHE_HOME': str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert 'no-such-compiler' in run.stderr
    assert 'Traceback' not in run.stderr
    after = {path for path in tmp_path.rglob('*') if '__pycache__' not in str(path)}
    assert after == before
