"""A loss on the parameters, added to those that the model computes."""

from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from .config_checks import ConfigError
from .optim import is_number


class AddedLoss:
    """What hooks share that add a loss of their own in training.

    It reaches the loss by way of the model's ``parse_losses``, so it is logged, and
    divided under gradient accumulation, like every other. A subclass calls
    :meth:`add_loss` in ``before_train``, and has the attribute ``loss_name``, the key
    by which it is logged, and :meth:`loss`.
    """

    loss_name: str

    def loss(self) -> Tensor:
        """The loss at the present parameters, a number."""
        raise NotImplementedError(f'{type(self).__name__} must define loss()')

    def is_due(self, runner) -> bool:
        """Whether it is added in this iteration."""
        return True

    def add_loss(self, runner) -> None:
        """Puts a function that adds the loss in the place of ``parse_losses``."""
        model = unwrapped(runner.model)
        parse_losses = model.parse_losses
        self._replaced = vars(model).get('parse_losses')

        def parse_losses_and_ours(losses: dict):
            if self.is_due(runner):
                losses = {**losses, self.loss_name: self.loss()}
            return parse_losses(losses)

        model.parse_losses = parse_losses_and_ours

    def after_train(self, runner) -> None:
        """Gives ``parse_losses`` back."""
        model = unwrapped(runner.model)
        del model.parse_losses
        if self._replaced is not None:
            model.parse_losses = self._replaced


def unwrapped(model: nn.Module) -> nn.Module:
    """The model in what mmengine wraps around it for several processes."""
    while is_model_wrapper(model):
        model = model.module
    return model


def as_nonnegative(name: str, value: float) -> float:
    """``value`` as a float of at least 0, or a ConfigError that names it."""
    if not is_number(value) or value < 0:
        raise ConfigError(f'{name} must be a number of at least 0, got {value!r}')
    return float(value)
