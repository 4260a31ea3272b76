"""What a release contains; the stock tools and mim can train from it once installed."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from dcls_mm import __version__
from dcls_mm.datasets import write_scenes
from dcls_mm.functional.native_code import building

ROOT = Path(__file__).resolve().parents[1]
CHECKOUT_ONLY = {'demo.py', 'setup_environment.py', 'update_zoo.py'}
FOLDERS = {
    *('.ci', '.github', 'benchmarks', 'configs', 'csrc', 'dcls_mm', 'docs'),
    *('requirements', 'resources', 'tests', 'tools'),
}

pytest.importorskip('setuptools', minversion='77')


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )
    assert not done.returncode, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def sdist(tmp_path_factory):
    """Build the source release from a copy, to leave nothing in the checkout."""
    source = tmp_path_factory.mktemp('source')
    for path in ROOT.iterdir():
        if path.name in FOLDERS:
            ignore = shutil.ignore_patterns('__pycache__', '_build')
            shutil.copytree(path, source / path.name, symlinks=True, ignore=ignore)
        elif path.is_file() and path.name != '.git':
            shutil.copy(path, source)
    build = 'import setuptools.build_meta as backend; backend.build_sdist("dist")'
    run(sys.executable, '-c', build, cwd=source)
    (sdist,) = source.glob('dist/*.tar.gz')
    return sdist


@pytest.fixture(scope='module')
def wheel(sdist):
    """Build the wheel from the source release, as installers without a wheel do."""
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-cache-dir', '--quiet']
    run(*pip, '--no-deps', '--no-build-isolation', '--wheel-dir', sdist.parent, sdist)
    (wheel,) = sdist.parent.glob('*.whl')
    return wheel


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
    """Return a folder with only the wheel installed."""
    site = tmp_path_factory.mktemp('site')
    pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps']
    run(*pip, '--no-index', '--target', site, wheel)
    return site


@pytest.fixture
def installed(site, tmp_path):
    """Return options for a process in an empty folder that has the wheel."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    settings = {'PYTHONPATH': str(site), 'OMP_NUM_THREADS': '1', 'PATH': path}
    return {'cwd': tmp_path, 'env': {**os.environ, **settings}}


def test_sdist_holds_the_checkout(sdist):
    """It includes what README shows, and what tests, docs and the demo need."""
    with tarfile.open(sdist) as file:
        held = {name.partition('/')[2] for name in file.getnames()}
    if not (ROOT / '.git').exists():
        pytest.skip('git tells what belongs to the checkout')
    tracked = set(run('git', 'ls-files', cwd=ROOT).splitlines())
    links = {'dcls_mm/.mim/configs', 'dcls_mm/.mim/tools'}  # real files in a release
    assert tracked - held - links == set()


def test_wheel_holds_what_mim_looks_for(wheel):
    names = set(ZipFile(wheel).namelist())
    expected = {'dcls_mm/.mim/model-index.yml'}
    for pattern in ('configs/**/*.py', 'configs/*/*.yml', 'configs/*/README.md'):
        expected |= {f'dcls_mm/.mim/{p.relative_to(ROOT)}' for p in ROOT.glob(pattern)}
    for path in (*ROOT.glob('tools/**/*.py'), *ROOT.glob('tools/*.sh')):
        if path.parent.name != 'environment' and path.name not in CHECKOUT_ONLY:
            expected.add(f'dcls_mm/.mim/{path.relative_to(ROOT)}')
    assert {name for name in names if '/.mim/' in name} == expected
    assert 'dcls_mm/py.typed' in names
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / 'dcls_mm').glob('**/*.py')}
    assert {n for n in names if n.endswith('.py') and '.mim' not in n} == {
        name for name in modules if '.mim' not in name
    }


LIBRARY = f'dcls_mm/functional/native_code/{building.NAME}'


@pytest.fixture
def compiler():
    try:
        return building.compiler()
    except building.BuildError as error:
        pytest.skip(str(error))


def test_a_wheel_built_with_a_compiler_has_the_compiled_part(compiler, wheel):
    """Its interface is plain C, so it is for one platform but for any Python."""
    tag = wheel.stem.split('-', 2)[2]
    assert tag.startswith('py3-none-') and tag != 'py3-none-any'
    assert LIBRARY in ZipFile(wheel).namelist()


@pytest.mark.parametrize(
    'setting, reason',
    [
        ({'DCLS_MM_NATIVE': '0'}, 'DCLS_MM_NATIVE is 0'),
        ({'CXX': 'no-such-compiler'}, r"there is no C\+\+ compiler 'no-such-compiler'"),
        ({'CXX': 'false'}, 'false .* failed'),
    ],
)
def test_a_wheel_without_the_compiled_part_is_for_any_platform(
    setting, reason, sdist, tmp_path
):
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-cache-dir', '--no-deps']
    log = tmp_path / 'log'
    options = '--no-build-isolation', '--log', log, '--wheel-dir', tmp_path
    run(*pip, *options, sdist, env={**os.environ, **setting})
    said = re.findall(f'the wheel has no compiled part: {reason}', log.read_text())
    assert len(said) == 1
    (wheel,) = tmp_path.glob('*.whl')
    assert wheel.name.endswith('-py3-none-any.whl')
    assert not [name for name in ZipFile(wheel).namelist() if name.endswith('.so')]


DIRECT = """
import torch
from dcls_mm import DCLSConv2d
from dcls_mm.functional.native_code import building, missing

sizes = dict(groups=4, padding=2, dilated_kernel_size=7, interpolation='bilinear')
layer = DCLSConv2d(4, 4, 5, formulation='direct', **sizes)
x = torch.randn(1, 4, 9, 9)
try:
    y = layer(x)
except ValueError:
    print(missing())
else:
    layer.formulation = 'construct'
    assert torch.allclose(y, layer(x), atol=1e-5)
    print(building.library_path())
"""


def test_the_compiled_part_of_a_wheel_is_used(compiler, site, installed, tmp_path):
    installed['env'] = {**installed['env'], 'XDG_CACHE_HOME': str(tmp_path / 'cache')}
    assert run(sys.executable, '-c', DIRECT, **installed).strip() == str(site / LIBRARY)
    module = 'dcls_mm.functional.native_code'
    out = run(sys.executable, '-m', module, **installed)
    assert out.startswith(f'{site / LIBRARY} is ready')
    kept = site / f'{LIBRARY}.kept'
    (site / LIBRARY).rename(kept)
    out = run(sys.executable, '-c', DIRECT, **installed)
    kept.rename(site / LIBRARY)
    assert 'no sources to build it from: install dcls_mm from its source' in out


def test_wheel_installs_nothing_of_openmmlab(wheel):
    """It doesn't touch forks installed under the same import names."""
    with ZipFile(wheel) as file:
        (path,) = (n for n in file.namelist() if n.endswith('METADATA'))
        requirements = (
            Parser().parsestr(file.read(path).decode()).get_all('Requires-Dist')
        )
    always = [r for r in requirements if 'extra ==' not in r]
    assert sorted(always) == ['numpy', 'torch>=2.6']


def test_versions_that_stand_twice_are_one():
    """These are the versions of the release and of the linter."""
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
    assert citation['version'] == __version__
    hooks = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())
    (revision,) = (r['rev'] for r in hooks['repos'] if 'ruff' in r['repo'])
    pins = (ROOT / 'requirements' / 'verified.txt').read_text().splitlines()
    assert f'ruff=={revision[1:]}' in pins


DEMOS = Path('dcls_mm/.mim/configs/demo')
WORK = [
    *('--work-dir', 'work', '--cfg-options', 'train_cfg.max_epochs=1'),
    *('param_scheduler.1.T_max=1', 'param_scheduler.1.end=1'),
    'train_dataloader.batch_size=2',
    *(
        f'{part}_dataloader.{option}'
        for part in ('train', 'val', 'test')
        for option in ('num_workers=0', 'persistent_workers=False')
    ),
]


def draw_scenes(folder):
    for split, count in (('train', 4), ('val', 2)):
        list(
            write_scenes(str(folder / 'data/shapes'), split=split, count=count, seed=1)
        )


@pytest.fixture
def stock_mim():
    """Require mim, which knows the stock packages only."""
    pytest.importorskip('mim', reason='needs openmim')
    try:
        metadata.distribution('mmsegmentation')
    except metadata.PackageNotFoundError:
        pytest.skip('mim asks for a distribution named mmsegmentation')


def mim(*arguments, **options):
    code = 'from mim.cli import cli; cli()'
    return run(sys.executable, '-W', 'ignore', '-c', code, *arguments, **options)


def test_stock_tools_run_an_installed_config(site, installed, tmp_path):
    mmdet = pytest.importorskip('mmdet')
    tools = Path(mmdet.__file__).parent / '.mim' / 'tools'
    config = site / DEMOS / 'cascade-mask-rcnn_convnext-dcls-demo_fpn_shapes.py'
    draw_scenes(tmp_path)
    run(sys.executable, tools / 'train.py', config, *WORK, **installed)
    checkpoint = tmp_path / 'work' / 'epoch_1.pth'
    out = run(sys.executable, tools / 'test.py', config, checkpoint, *WORK, **installed)
    assert 'coco/bbox_mAP' in out
    show = 'import dcls_mm; print(dcls_mm.__path__[0])'
    used = run(sys.executable, '-c', show, **installed)
    assert used.strip() == str(site / 'dcls_mm')


def test_mim_runs_an_installed_config(stock_mim, site, installed, tmp_path):
    """It runs the stock tools, here mmseg's."""
    config = site / DEMOS / 'upernet_convnext-dcls-demo_shapes.py'
    draw_scenes(tmp_path)
    mim('train', 'mmsegmentation', config, '--gpus', '0', *WORK, **installed)
    checkpoint = ['--checkpoint', 'work/epoch_1.pth']
    out = mim('test', 'mmsegmentation', config, *checkpoint, *WORK, **installed)
    assert 'mIoU' in out


def test_mim_lists_and_copies_configs(stock_mim, site, installed, tmp_path):
    listed = mim('search', 'dcls_mm', **installed)
    for path in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        for entry in yaml.safe_load((ROOT / path).read_text())['Models']:
            assert f'config id: {entry["Name"]}\n' in listed
    # The weights come first; existing files are not downloaded again.
    (tmp_path / 'upernet_convnext_dcls_tiny_1k_512x512.pth').touch()
    name = 'convnext-dcls-tiny_upernet_8xb2-amp-160k_ade20k-512x512'
    mim('download', 'dcls_mm', '--config', name, '--dest', '.', **installed)
    flat = (tmp_path / f'{name}.py').read_text()
    assert "type='ConvNeXtDCLS'" in flat and '_base_' not in flat
