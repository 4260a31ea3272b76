"""Registers the published DCLS networks with timm when it is imported.

timm's scripts then build them by name: `train.py --device-modules dcls_mm.timm_models`,
and `tools/run_timm.py` for scripts without that option.
"""

try:
    import timm  # noqa: F401
except ImportError as error:
    raise ImportError(
        f'dcls_mm.timm_models needs timm and torchvision, but {error}; '
        "`pip install 'timm>=1.0.31'` installs both"
    ) from error

from .backbones.timm_networks import dcls  # noqa: F401
