"""The model of a config, ready for use: in evaluation mode, with trained weights."""

from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..checkpoint import check_content, read_checkpoint
from ..checkpoint.matching import load_matching
from ..checks.errors import ConfigError, errors_about
from .configs import load_config


class Trained(NamedTuple):
    """A trained model, its config, and its checkpoint as loaded."""

    model: nn.Module
    cfg: Config
    checkpoint: dict


def build_model(cfg: Config, config: str) -> nn.Module:
    """Build the model of a config in evaluation mode, with BN instead of SyncBN.

    Args:
        cfg: the config.
        config: its file, for the error message.

    Raises:
        ConfigError: the config has no model, or one that can't be built.
    """
    if not cfg.get('model'):
        raise ConfigError(f'{config}: the config has no model')
    init_default_scope(cfg.default_scope)
    # A model's constructor may raise anything.
    with errors_about(f'{config}: the model cannot be built', Exception):
        return revert_sync_batchnorm(MODELS.build(cfg.model)).eval()


def read_trained(checkpoint: str) -> dict:
    """Read the checkpoint of a model: a path, or a URL that mmengine knows.

    Raises:
        CheckpointError: it can't be read, or has no weights.
    """
    trained = read_checkpoint(checkpoint)
    check_content(trained, checkpoint)
    return trained


def load_trained(
    config: str, checkpoint: str, cfg_options: dict[str, Any] | None = None
) -> Trained:
    """Build the model of a config in evaluation mode, with a checkpoint's weights.

    Args:
        config, cfg_options: see :func:`.configs.load_config`.
        checkpoint: the weights: a path, or a URL that mmengine knows.

    Raises:
        ConfigError: the config can't be used.
        CheckpointError: the checkpoint can't be read, or belongs to another model.
    """
    cfg = load_config(config, cfg_options=cfg_options)
    weights = read_trained(checkpoint)
    model = build_model(cfg, config)
    load_matching(model, weights, checkpoint)
    return Trained(model, cfg, weights)
