"""The model of a config, for use: in evaluation, and with a checkpoint's weights."""

from typing import Any

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from .checkpoint_hooks import load_matching


def build_model(cfg: Config) -> nn.Module:
    """The model of a config, in evaluation, with one process's batch norms."""
    init_default_scope(cfg.default_scope)
    return revert_sync_batchnorm(MODELS.build(cfg.model)).eval()


def load_model(cfg: Config, checkpoint: Any, filename: str) -> nn.Module:
    """The model of a config with a checkpoint's weights, in evaluation.

    Args:
        cfg: with a default_scope.
        checkpoint: as loaded.
        filename: what errors call it.

    Raises:
        CheckpointError: it is of another model.
    """
    model = build_model(cfg)
    load_matching(model, checkpoint, filename)
    return model
