"""A loss on the aliasing of continuous kernels."""

import torch
from mmengine.hooks import Hook

from ...checkpoint.matching import unwrapped
from ...checks.arguments import as_nonnegative, checked
from ...checks.errors import ConfigError
from ...functional._arguments import as_bool, check_choice
from ...functional.continuous import ALIAS_METHODS, alias_penalty
from ...layers.flexconv.kernel_nets import MAGNet
from ...layers.flexconv.layer import FlexConvNd
from ..optimizers.dcls_optimizer_constructor import check_unsharded
from .added_loss import AddedLoss


class AliasLossHook(AddedLoss, Hook):
    """A hook that adds a loss on frequencies that the taps of FlexConv can't show.

    They are those above the taps' Nyquist frequency. ``loss_alias`` is ``weight`` times
    the sum over layers of :func:`.alias_penalty`, of the bound that a MAGNet gives. A
    kernel without such frequencies is the same function of space at every resolution.
    The defaults are the published ones.

    Args:
        weight: at least 0; 0.1 in the published experiments. The penalty is a square
            of periods: a layer of 17x17 starts at about 500, so use a smaller weight if
            it would drown the other losses.
        with_mask: whether the frequencies that the mask adds count.
        method: 'per_filter' compares each filter, with its share of the mask, with an
            equal share of the Nyquist frequency; 'summed' compares their sum with all
            of it; 'per_factor', not published, treats the mask as one more filter.
        deviations: standard deviations of a Gaussian spectrum that count, at least 0.

    Raises:
        ConfigError: an argument is invalid; the message names it.

    Source: arXiv 2110.08059, section on anti-aliasing, and its published code.
    """

    loss_name = 'loss_alias'

    def __init__(
        self,
        weight: float = 0.1,
        with_mask: bool = True,
        method: str = 'per_filter',
        deviations: float = 2.0,
    ) -> None:
        self.weight = as_nonnegative('AliasLossHook.weight', weight)
        self.deviations = as_nonnegative('AliasLossHook.deviations', deviations)
        self.with_mask = checked(as_bool, 'AliasLossHook.with_mask', with_mask)
        checked(check_choice, 'AliasLossHook.method', method, choices=ALIAS_METHODS)
        self.method = method

    def before_train(self, runner) -> None:
        """Find the layers, and add the loss.

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
                f"layers of kernel_net 'magnet', but {type(model).__name__} has none: "
                'leave out the hook'
            )
        self.add_loss(runner)

    def loss(self) -> torch.Tensor:
        """Return the loss at the current parameters, a scalar."""
        penalties = [
            alias_penalty(
                layer.highest_frequencies(self.deviations, with_mask=False),
                layer.nyquist_frequency,
                layer.mask_frequency(self.deviations) if self.with_mask else None,
                self.method,
            )
            for layer in self.layers
        ]
        return self.weight * torch.stack(penalties).sum()
