"""What training needs beyond mmengine: safe checkpoints, and DCLS's techniques."""

from .alias_hook import AliasLossHook
from .checkpoint import widen_mmengine
from .checkpoint_hooks import AtomicCheckpointHook
from .distinct_names_hook import DistinctNamesHook
from .epoch_seed import EpochSeedHook
from .finite_loss_hook import FiniteLossHook
from .optim import DCLSOptimizerConstructor
from .position_hooks import (
    ClampPositionsHook,
    FreezePositionsHook,
    RepulsionLossHook,
    SigmaAnnealingHook,
)
from .visualization_hook import PositionsVisualizationHook

__all__ = [
    'AliasLossHook',
    'AtomicCheckpointHook',
    'ClampPositionsHook',
    'DCLSOptimizerConstructor',
    'DistinctNamesHook',
    'EpochSeedHook',
    'FiniteLossHook',
    'FreezePositionsHook',
    'PositionsVisualizationHook',
    'RepulsionLossHook',
    'SigmaAnnealingHook',
    'widen_mmengine',
]
