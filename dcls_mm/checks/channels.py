"""The number of channels of a model's images."""

import torch
from torch import nn

from ..layers import ConstructedConvNd
from .errors import ConfigError

_CONVOLUTIONS = (
    ConstructedConvNd,
    *(getattr(nn, f'Conv{kind}{n}d') for kind in ('', 'Transpose') for n in (1, 2, 3)),
)

# Colour images, grey images, and colour images with one more channel.
_USUAL = 3, 1, 4


class _FirstConvolution(Exception):
    """The end of a forward pass; args are the expected and actual channels."""


@torch.no_grad()
def input_channels(network: nn.Module, size: tuple[int, int] = (256, 320)) -> int:
    """Return the number of channels of the images that a network takes.

    It follows from the first convolution that runs, whatever its name or place; some
    networks have a stem that packs several pixels into channels.

    Args:
        network: a function of images (batch, channels, height, width).
        size: (height, width) of an image that it accepts.

    Raises:
        ConfigError: no number of channels fits.
        Exception: what the network raises for images of 3 channels, if it accepts no
            other number either.
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
            except Exception as error:  # other people's code may raise anything
                refused = refused or error
            else:
                return channels  # no convolution ran, but these channels work
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
            f'the first convolution takes {wanted} channels, but gets {came} from '
            f'images with {tried}: no number of image channels fits'
        )
    return channels
