"""The loss that keeps continuous kernels free of what their taps can't show."""

import torch
from mmengine.hooks import Hook

from ..functional.continuous import alias_penalty
from ..layers.flexconv import FlexConvNd
from ..layers.kernel_nets import MAGNet
from .added_loss import AddedLoss, as_nonnegative, unwrapped
from .config_checks import ConfigError
from .optim import check_unsharded


class AliasLossHook(AddedLoss, Hook):
    """Adds a loss on frequencies of FlexConv kernels above their taps' Nyquist one.

    The losses gain ``loss_alias = weight * sum over layers of``
    :func:`.alias_penalty`, of the bound that a MAGNet tells. A kernel without such
    frequencies is the same function of space at every resolution.

    Args:
        weight: at least 0; about 0.1 is the published one.
        with_mask: whether the mask counts among the factors of a kernel.
        per_filter: each factor against its equal share, instead of their sum.
        deviations: standard deviations of a Gaussian spectrum that count, at least 0.

    Source: arXiv 2110.08059, section on anti-aliasing.
    """

    loss_name = 'loss_alias'

    def __init__(
        self,
        weight: float = 0.1,
        with_mask: bool = True,
        per_filter: bool = False,
        deviations: float = 1.0,
    ) -> None:
        self.weight = as_nonnegative('AliasLossHook.weight', weight)
        self.deviations = as_nonnegative('AliasLossHook.deviations', deviations)
        self.with_mask = with_mask
        self.per_filter = per_filter

    def before_train(self, runner) -> None:
        """Finds the layers, and adds the loss.

        Raises:
            ConfigError: the model has no FlexConv layers with a MAGNet, or FSDP shards
                it.
        """
        check_unsharded(runner.model, f'custom_hooks: {type(self).__name__}')
        model = unwrapped(runner.model)
        self.layers = [
            layer
            for layer in model.modules()
            if isinstance(layer, FlexConvNd) and isinstance(layer.net, MAGNet)
        ]
        if not self.layers:
            raise ConfigError(
                f'custom_hooks: {type(self).__name__} needs a model with FlexConv '
                f"layers of kernel_net 'magnet', and {type(model).__name__} has none: "
                'leave it out'
            )
        self.add_loss(runner)

    def loss(self) -> torch.Tensor:
        """The loss at the present parameters, a number."""
        penalties = [
            alias_penalty(
                layer.highest_frequencies(self.deviations, self.with_mask),
                layer.nyquist_frequency,
                self.per_filter,
            )
            for layer in self.layers
        ]
        return self.weight * torch.stack(penalties).sum()
