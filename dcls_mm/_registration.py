"""What dcls_mm adds to MMEngine's registries and changes in OpenMMLab's functions."""

from mmengine.registry import (
    HOOKS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    TRANSFORMS,
    Registry,
)

from . import _versions, backbones, datasets, layers
from .checkpoint.mmengine_loaders import widen_mmengine
from .deploy.bn_fusion import guard_mmcv
from .engine import hooks, optimizers

# Registry -> package -> names in it. The classes are looked up at each registration
# because a reloaded module has new ones.
REGISTERED = {
    MODELS: {
        layers: (
            'DCLSConv1d',
            'DCLSConv2d',
            'DCLSConv3d',
            'DCLSConvTranspose1d',
            'DCLSConvTranspose2d',
            'DCLSConvTranspose3d',
            'FlexConv1d',
            'FlexConv2d',
            'LargeKernelConv2d',
            'RotatedDCLSConv2d',
            'SteeredDCLSConv2d',
        ),
        backbones: (
            'ConvNeXtDCLS',
            'DCLSDeconvModule',
            'ReplacedConvBackbone',
            'ReplacedConvModel',
            'TimmBackbone',
        ),
    },
    HOOKS: {
        hooks: (
            'AdaptKernelsHook',
            'AliasLossHook',
            'AtomicCheckpointHook',
            'ClampPositionsHook',
            'DistinctNamesHook',
            'EpochSeedHook',
            'FiniteLossHook',
            'FreezePositionsHook',
            'PositionTravelHook',
            'PositionsLogHook',
            'PositionsVisualizationHook',
            'RepulsionLossHook',
            'SigmaAnnealingHook',
        )
    },
    TRANSFORMS: {datasets: ('CorruptImage',)},
    OPTIM_WRAPPER_CONSTRUCTORS: {optimizers: ('DCLSOptimizerConstructor',)},
}


def register() -> None:
    """Register everything that a config may name.

    The classes go into the root registries, where mmdet, mmseg and mmcv's build
    functions all look. A second call replaces only classes that were reloaded.

    Raises:
        KeyError: a class from another package already has one of these names.
    """
    for registry, packages in REGISTERED.items():
        for package, names in packages.items():
            for name in names:
                _register(registry, getattr(package, name))
    widen_mmengine()
    guard_mmcv()
    _versions.find_configs_of_forks()


def _register(registry: Registry, module: type) -> None:
    known = registry.module_dict.get(module.__name__)
    # Replace a class only with its own reloaded version.
    ours = known is not None and _full_name(known) == _full_name(module)
    registry.register_module(module=module, force=ours)


def _full_name(module: type) -> tuple[str, str]:
    return module.__module__, module.__qualname__
