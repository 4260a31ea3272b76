"""What stands in MMEngine's registries, and what of OpenMMLab is widened."""

from mmengine.registry import (
    HOOKS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    TRANSFORMS,
)

from . import _versions, backbones, layers
from .checkpoint.mmengine_loaders import widen_mmengine
from .datasets.corruption import CorruptImage
from .deploy.bn_fusion import guard_mmcv
from .engine import hooks, optimizers

REGISTERED = {
    MODELS: (
        layers.DCLSConv1d,
        layers.DCLSConv2d,
        layers.DCLSConv3d,
        layers.DCLSConvTranspose1d,
        layers.DCLSConvTranspose2d,
        layers.DCLSConvTranspose3d,
        layers.FlexConv1d,
        layers.FlexConv2d,
        layers.LargeKernelConv2d,
        backbones.ConvNeXtDCLS,
        backbones.DCLSDeconvModule,
        backbones.ReplacedConvBackbone,
    ),
    HOOKS: (
        hooks.AliasLossHook,
        hooks.AtomicCheckpointHook,
        hooks.ClampPositionsHook,
        hooks.DistinctNamesHook,
        hooks.EpochSeedHook,
        hooks.FiniteLossHook,
        hooks.FreezePositionsHook,
        hooks.PositionsVisualizationHook,
        hooks.RepulsionLossHook,
        hooks.SigmaAnnealingHook,
    ),
    TRANSFORMS: (CorruptImage,),
    OPTIM_WRAPPER_CONSTRUCTORS: (optimizers.DCLSOptimizerConstructor,),
}


def register() -> None:
    """Registers everything that a config may name; again, nothing more happens.

    In the root registries, where mmdet, mmseg and mmcv's build functions all look.
    """
    for registry, modules in REGISTERED.items():
        for module in modules:
            if registry.module_dict.get(module.__name__) is not module:
                registry.register_module(module=module)
    widen_mmengine()
    guard_mmcv()
    _versions.find_configs_of_forks()
