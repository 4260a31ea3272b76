"""How many channels the images of a model have."""

import torch
from torch import nn

from ..layers import ConstructedConvNd
from .errors import ConfigError

_CONVOLUTIONS = (
    ConstructedConvNd,
    *(getattr(nn, f'Conv{kind}{n}d') for kind in ('', 'Transpose') for n in (1, 2, 3)),
)

# Images of colours, without, and with one channel more.
_USUAL = 3, 1, 4


class _FirstConvolution(Exception):
    """Ends a forward pass: args are the channels wanted and those that came."""


@torch.no_grad()
def input_channels(network: nn.Module, size: tuple[int, int] = (256, 320)) -> int:
    """The number of channels of the images that a network takes.

    It is what the first convolution that runs asks for, whatever its name or place:
    some have a stem that puts several pixels into channels.

    Args:
        network: a function of images (batch, channels, height, width).
        size: (height, width) of an image that it takes.

    Raises:
        ConfigError: no number of channels fits.
        Exception: whatever the network raises at images of 3 channels, if it takes
            those of no other number either.
    """
    convolutions = [m for m in network.modules() if isinstance(m, _CONVOLUTIONS)]
    hooks = [conv.register_forward_pre_hook(_stop) for conv in convolutions]
    stem = [conv.in_channels for conv in convolutions[:1]]
    device = next((p.device for p in network.parameters()), None)
    refused = None
    try:
        for channels in dict.fromkeys((*_USUAL[:1], *stem, *_USUAL[1:])):
            try:
                network(torch.zeros(1, channels, *size, device=device))
            except _FirstConvolution as found:
                return _fitting(channels, *found.args)
            except Exception as error:  # of other people's code, which may check first
                refused = refused or error
            else:
                return channels  # there is no convolution to ask, and these do
    finally:
        for hook in hooks:
            hook.remove()
    raise refused


def _stop(module: nn.Module, inputs: tuple) -> None:
    raise _FirstConvolution(module.in_channels, inputs[0].shape[1])


def _fitting(tried: int, wanted: int, came: int) -> int:
    channels, rest = divmod(tried * wanted, came)
    if rest:
        raise ConfigError(
            f'the first convolution takes {wanted} channels, and gets {came} from '
            f'images of {tried}: no number of channels of the images fits'
        )
    return channels
