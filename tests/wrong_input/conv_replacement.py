"""Wrong arguments of from_conv and replace_convs."""

from torch import nn

from dcls_mm.backbones.conv_replacement import replace_convs
from dcls_mm.layers import DCLSConv2d, DCLSConvTranspose2d, FlexConv2d
from dcls_mm.layers.noted import StateDictError

from . import wrong


def model(**options):
    return nn.Sequential(nn.Conv2d(3, 4, 3, **options), nn.Conv2d(4, 4, 5, padding=2))


def replace(network=None, layer=DCLSConv2d, **options):
    return lambda: replace_convs(network or model(), layer, **options)


def tied():
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    network[1].weight = network[0].weight
    return network


def half_frozen():
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    network[0].requires_grad_(False)
    return network


class OwnConv2d(nn.Conv2d):
    """A convolution that may compute something else, as far as replace_convs knows."""


ROWS = [
    wrong(
        lambda: DCLSConv2d.from_conv(nn.Conv1d(2, 2, 3)),
        TypeError,
        'conv must be a torch.nn.Conv2d to become a DCLSConv2d, got Conv1d',
    ),
    wrong(
        lambda: DCLSConv2d.from_conv(nn.Conv2d(2, 2, 3), kernel_count=4),
        ValueError,
        *('must be as many as these', 'make kernel_count 9 or leave it out, got 4'),
    ),
    wrong(
        lambda: DCLSConv2d(
            2, 2, kernel_count=26, dilated_kernel_size=7
        ).load_state_dict(nn.Conv2d(2, 2, 5).state_dict()),
        StateDictError,
        *('has the 5x5 kernel of a plain convolution', 'make kernel_count 25'),
    ),
    wrong(
        lambda: replace_convs(None, DCLSConv2d),
        TypeError,
        'model must be a torch.nn.Module, got None',
    ),
    wrong(
        lambda: replace_convs(nn.Conv2d(2, 2, 3), DCLSConv2d),
        ValueError,
        'the model is itself a convolution',
        'DCLSConv2d.from_conv(conv)',
    ),
    wrong(
        lambda: replace_convs(nn.Sequential(nn.ReLU()), DCLSConv2d),
        ValueError,
        'the model has no Conv2d to replace',
    ),
    wrong(replace(layer=nn.Conv2d), TypeError, 'layer must be a class', 'got Conv2d'),
    wrong(replace(layer='DCLSConv2d'), TypeError, 'layer must be a class of convolu'),
    wrong(replace(layer=DCLSConvTranspose2d), TypeError, 'that are not transposed'),
    wrong(replace(name='['), ValueError, 'name must be a regular expression'),
    wrong(replace(name=3), TypeError, 'name must be a regular expression, got 3'),
    wrong(replace(name='stem'), ValueError, "name='stem'", '0 (Conv2d 3x3)'),
    wrong(replace(depthwise='yes'), TypeError, 'depthwise must be True, False or None'),
    wrong(
        replace(kernel_size='3'),
        TypeError,
        *('kernel_size must be an integer', "got '3'"),
    ),
    wrong(
        replace(start=['conv']), ValueError, "start must be one of ['conv', 'fresh']"
    ),
    wrong(replace(layer=FlexConv2d), ValueError, 'from_conv', "use start='fresh'"),
    wrong(
        replace(layer=FlexConv2d, start='fresh', share_positions='.'),
        ValueError,
        'share_positions must be left out: a FlexConv2d has no positions',
    ),
    wrong(
        replace(share_positions='stage'),
        ValueError,
        "share_positions='stage' matches none of the names",
        'such as 0',
    ),
    wrong(
        replace(dilated_kernel_size=8), ValueError, "0 can't become a DCLSConv2d", 'odd'
    ),
    wrong(
        lambda: replace_convs(nn.Sequential(OwnConv2d(2, 2, 3)), DCLSConv2d),
        ValueError,
        "0 can't be replaced because it is a OwnConv2d",
        'exclude it by name',
    ),
    wrong(
        lambda: replace_convs(tied(), DCLSConv2d),
        ValueError,
        "0 can't be replaced because it shares its weight with 1",
    ),
    wrong(
        lambda: replace_convs(half_frozen(), DCLSConv2d, share_positions='.'),
        ValueError,
        "share_positions='.' joins 0 and 1, of which only one is frozen",
    ),
]
