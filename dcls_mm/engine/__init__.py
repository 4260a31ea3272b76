"""What training needs beyond mmengine: safe checkpoints, in and out."""

from .checkpoint import guard_mmengine
from .checkpoint_hooks import AtomicCheckpointHook

__all__ = ['AtomicCheckpointHook', 'guard_mmengine']
