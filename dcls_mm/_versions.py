"""The supported versions of other packages, checked without importing them.

The distribution does not require the OpenMMLab packages (see pyproject.toml), so an
unsupported version is caught here, when dcls_mm is imported, rather than deep in a
training run.
"""

import re
import warnings
from importlib import metadata
from importlib.util import find_spec

# Import name -> {distribution that provides it: (from, below)}. The `onedl-`
# distributions are maintained forks of the stock ones with the same import names.
SUPPORTED = {
    'torch': {'torch': ('2.6', '3')},
    'mmengine': {'mmengine': ('0.10.3', '1'), 'onedl-mmengine': ('0.10.12', '0.11')},
    'mmcv': {
        'mmcv': ('2.1', '2.2'),
        'mmcv-lite': ('2.1', '2.2'),
        'onedl-mmcv': ('2.3.6', '2.4'),
    },
    'mmdet': {'mmdet': ('3.3', '4'), 'onedl-mmdetection': ('3.5.1', '4')},
    'mmseg': {'mmsegmentation': ('1.2.2', '2'), 'onedl-mmsegmentation': ('1.4.2', '2')},
    # There is no release of the stock one for mmdet 3.3.
    'mmrotate': {'onedl-mmrotate': ('1.2.1', '2')},
}


def available(name):
    """Return whether a top-level module can be imported, without importing it."""
    return find_spec(name) is not None


def check():
    """Check all installed packages of `SUPPORTED`.

    Warn if mmengine or mmcv is missing (dcls_mm.functional and dcls_mm.layers work
    without them), if two distributions provide the same module, or if pkg_resources,
    which mmengine 0.10 needs, is missing. mmdet and mmseg may be missing.

    Raises:
        ImportError: a package has a version that dcls_mm does not work with.
    """
    for name, ranges in SUPPORTED.items():
        found = {dist: version for dist in ranges if (version := _version(dist))}
        for dist, version in found.items():
            _check_range(dist, version, *ranges[dist])
        if len(found) > 1:
            _warn(
                f'{" and ".join(found)} are both installed and overwrite each other, '
                f'since both provide the module {name}; uninstall both, then install '
                'one of them.'
            )
    missing = [name for name in ('mmengine', 'mmcv') if not available(name)]
    if missing:
        _warn(
            f'{" and ".join(missing)} not found: dcls_mm.layers and '
            'dcls_mm.functional work, but registries, backbones and configs do not; '
            + remedy(*missing)
        )
    if _version('mmengine') and not available('pkg_resources'):
        _warn(
            'mmengine needs the module pkg_resources for configs that inherit from '
            'another package (`mmdet::...`), and setuptools 82 no longer has it; '
            "`pip install 'setuptools<82'` brings it back."
        )


def remedy(*names):
    """Return advice to install ``names`` and, where missing, mmengine and mmcv."""
    wanted = [
        name
        for name in SUPPORTED
        if name in names or (name in ('mmengine', 'mmcv') and not available(name))
    ]
    ranges = [next(iter(SUPPORTED[name].items())) for name in wanted]
    packages = ' '.join(f"'{dist}>={low},<{below}'" for dist, (low, below) in ranges)
    return f'`pip install {packages}` installs what is missing.'


def find_configs_of_forks():
    """Let a config inherit from `mmdet::...` and the like where a fork provides it.

    onedl-mmengine 0.10.12 looks up the distribution by its stock name. Where none is
    installed, mmengine's error then names the one that dcls_mm works with.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    for name in ('mmdet', 'mmseg', 'mmrotate'):
        for dist in SUPPORTED[name]:
            if _version(dist) or len(SUPPORTED[name]) == 1:
                MODULE2PACKAGE[name] = dist


def _check_range(dist, version, low, below):
    if _release(low) <= _release(version) < _release(below):
        return
    raise ImportError(
        f'dcls_mm works with {dist}>={low},<{below}, but {dist} {version} is '
        f"installed; `pip install '{dist}>={low},<{below}'` replaces it."
    )


def _version(dist):
    try:
        return metadata.version(dist)
    except metadata.PackageNotFoundError:
        return None


def _release(version):
    """Parse '2.13.0rc1+cpu' to (2, 13): the leading numbers without trailing zeros."""
    numbers = [int(n) for n in re.match(r'[\d.]*', version)[0].split('.') if n]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _warn(message):
    # Stack level 4 is the line that imports dcls_mm.
    warnings.warn(message, stacklevel=4)
