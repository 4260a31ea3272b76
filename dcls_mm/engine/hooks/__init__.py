"""Hooks: the techniques of DCLS, and safeguards for trainings."""

from .adapt_kernels_hook import AdaptKernelsHook
from .alias_loss_hook import AliasLossHook
from .atomic_checkpoint_hook import AtomicCheckpointHook
from .checkpoint_match_hook import CheckpointMatchHook
from .distinct_names_hook import DistinctNamesHook
from .epoch_seed_hook import EpochSeedHook
from .finite_loss_hook import FiniteLossHook, NonFiniteLossError
from .load_from_hook import LoadFromHook
from .position_hooks import (
    ClampPositionsHook,
    FreezePositionsHook,
    RepulsionLossHook,
    SigmaAnnealingHook,
)
from .position_travel_hook import PositionTravelHook
from .positions_log_hook import PositionsLogHook
from .positions_visualization_hook import PositionsVisualizationHook
from .resume_match_hook import ResumeMatchHook

__all__ = [
    'AdaptKernelsHook',
    'AliasLossHook',
    'AtomicCheckpointHook',
    'CheckpointMatchHook',
    'ClampPositionsHook',
    'DistinctNamesHook',
    'EpochSeedHook',
    'FiniteLossHook',
    'FreezePositionsHook',
    'LoadFromHook',
    'NonFiniteLossError',
    'PositionTravelHook',
    'PositionsLogHook',
    'PositionsVisualizationHook',
    'RepulsionLossHook',
    'ResumeMatchHook',
    'SigmaAnnealingHook',
]
