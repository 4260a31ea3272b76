"""DCLS layers and backbones for OpenMMLab 2; importing this registers them."""

from . import _compat
from .version import __version__

__all__ = ['__version__']

_compat.check()

if _compat.available('mmengine') and _compat.available('mmcv'):
    from mmengine.registry import (
        HOOKS,
        MODELS,
        OPTIM_WRAPPER_CONSTRUCTORS,
        TRANSFORMS,
    )

    from . import backbones, bn_fusion, engine, layers
    from .datasets.corruption import CorruptImage

    # In the root registries, where mmdet, mmseg and mmcv's build functions all look.
    for module in (
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
    ):
        MODELS.register_module(module=module)
    for module in (
        engine.AliasLossHook,
        engine.AtomicCheckpointHook,
        engine.ClampPositionsHook,
        engine.DistinctNamesHook,
        engine.EpochSeedHook,
        engine.FiniteLossHook,
        engine.FreezePositionsHook,
        engine.PositionsVisualizationHook,
        engine.RepulsionLossHook,
        engine.SigmaAnnealingHook,
    ):
        HOOKS.register_module(module=module)
    TRANSFORMS.register_module(module=CorruptImage)
    OPTIM_WRAPPER_CONSTRUCTORS.register_module(module=engine.DCLSOptimizerConstructor)
    engine.widen_mmengine()
    bn_fusion.guard_mmcv()
    _compat.find_configs_of_forks()
