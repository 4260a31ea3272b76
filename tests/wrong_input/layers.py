"""Wrong arguments of layers, of their methods, and of replace_convs."""

import torch
from torch import nn

from dcls_mm.backbones.conv_replacement import replace_convs
from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    DCLSConvTranspose2d,
    FlexConv1d,
    FlexConv2d,
    LargeKernelConv2d,
)
from dcls_mm.layers.dropin import Dcls2d
from dcls_mm.layers.noted import StateDictError

from . import wrong


def dcls(*channels, **options):
    """Return a call of DCLSConv2d, by default with 4 channels and 3x3 elements."""
    arguments = dict(in_channels=4, out_channels=4, kernel_size=3)
    return lambda: DCLSConv2d(*channels, **{**arguments, **options})


def gauss(**options):
    return dcls(interpolation='gauss', **options)


def flex(**options):
    return lambda: FlexConv2d(2, 2, **{'dilated_kernel_size': 9, **options})


def net(**options):
    return flex(kernel_net=options)


def transposed(**options):
    return lambda: DCLSConvTranspose2d(2, 2, **{'kernel_size': 4, **options})


def large(**options):
    return lambda: LargeKernelConv2d(2, 2, **{'kernel_size': 7, **options})


def load(source, **options):
    """Return a call that loads the state_dict of ``source`` into a DCLSConv2d."""
    return lambda: dcls(**options)().load_state_dict(source().state_dict())


def plain(source, **options):
    """Return the same for a plain dict, without torch's metadata."""
    return lambda: dcls(**options)().load_state_dict(dict(source().state_dict()))


def as_published(source):
    """Return a layer's state_dict with the published package's metadata."""
    state_dict = source().state_dict()
    state_dict._metadata[''] = dict(version=1)
    return state_dict


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


BOOLEAN = 'must be True or False, got '

ROWS = [
    # Booleans.
    wrong(dcls(bias='no'), TypeError, 'bias ' + BOOLEAN + "'no'"),
    wrong(dcls(bias=None), TypeError, 'bias ' + BOOLEAN + 'None'),
    wrong(large(bias=1), TypeError, 'bias ' + BOOLEAN + '1'),
    wrong(flex(bias='False'), TypeError, 'bias ' + BOOLEAN + "'False'"),
    wrong(transposed(bias=0), TypeError, 'bias ' + BOOLEAN + '0'),
    wrong(
        dcls(integer_positions='no'), TypeError, 'integer_positions ' + BOOLEAN + "'no'"
    ),
    wrong(
        dcls(learn_positions='False'),
        TypeError,
        'learn_positions ' + BOOLEAN + "'False'",
    ),
    wrong(gauss(learn_sigma=None), TypeError, 'learn_sigma ' + BOOLEAN + 'None'),
    wrong(
        dcls(per_output_positions=[False]),
        TypeError,
        'per_output_positions ' + BOOLEAN + '[False]',
    ),
    wrong(flex(learn_mask='no'), TypeError, 'learn_mask ' + BOOLEAN + "'no'"),
    wrong(
        net(type='magnet', rotated='yes'),
        TypeError,
        *("'rotated': 'yes'", 'kernel_net.rotated ' + BOOLEAN),
    ),
    # Numbers.
    wrong(dcls(kernel_count=0), ValueError, 'kernel_count must be at least 1, got 0'),
    wrong(
        dcls(kernel_count='9'), TypeError, "kernel_count must be an integer, got '9'"
    ),
    wrong(
        dcls(kernel_count=2.5), TypeError, 'kernel_count must be an integer, got 2.5'
    ),
    wrong(dcls(kernel_count=True), TypeError, 'kernel_count must be an integer'),
    wrong(dcls(in_channels=0), ValueError, 'in_channels must be at least 1, got 0'),
    wrong(
        dcls(out_channels='4'), TypeError, "out_channels must be an integer, got '4'"
    ),
    wrong(dcls(groups=3), ValueError, 'groups must divide in_channels (4)', 'groups=3'),
    wrong(
        dcls(in_channels=6, groups=3),
        ValueError,
        *('groups must divide out_channels (4)', 'groups=3'),
    ),
    wrong(dcls(stride=0), ValueError, 'stride must be at least 1, got 0'),
    wrong(
        dcls(stride=(1, 1, 1)), ValueError, 'stride must be one integer or 2 of them'
    ),
    wrong(dcls(dilation=-1), ValueError, 'dilation must be at least 1, got -1'),
    wrong(dcls(padding=-1), ValueError, 'padding must be at least 0, got -1'),
    wrong(dcls(kernel_size=0), ValueError, 'kernel_size must be at least 1, got 0'),
    wrong(
        dcls(dilated_kernel_size=(9, 9, 9)),
        ValueError,
        'dilated_kernel_size must be one integer or 2 of them',
    ),
    wrong(
        gauss(initial_sigma=float('nan')),
        ValueError,
        'initial_sigma must be finite, got nan',
    ),
    wrong(
        gauss(initial_sigma='0.2'),
        TypeError,
        "initial_sigma must be a number, got '0.2'",
    ),
    wrong(
        lambda: gauss()().fix_sigma(float('inf')),
        ValueError,
        'value must be finite, got inf',
    ),
    wrong(
        lambda: gauss()().fix_sigma('0.1'),
        TypeError,
        "value must be a number, got '0.1'",
    ),
    wrong(dcls(spacing='2'), TypeError, "spacing must be a number, got '2'"),
    wrong(dcls(spacing=True), TypeError, 'spacing must be a number, got True'),
    wrong(dcls(spacing=0), ValueError, 'spacing must be positive, got 0'),
    wrong(dcls(spacing=(2.0, -1)), ValueError, 'must be positive, got (2.0, -1)'),
    wrong(dcls(spacing=float('inf')), ValueError, 'spacing must be finite, got inf'),
    wrong(dcls(spacing=(2.0,)), ValueError, 'one number or 2 of them', 'got (2.0,)'),
    wrong(
        dcls(position_axes=(1,), spacing=(2.0, 1.0)),
        ValueError,
        'spacing must be 1 along axis 0, which is dense, got (2.0, 1.0)',
    ),
    wrong(
        lambda: setattr(Dcls2d(4, 4, 9), 'spacing', 2.0),
        ValueError,
        'spacing must be 1 in a Dcls2d',
        'use a DCLSConv2d, got 2.0',
    ),
    # Names.
    wrong(
        dcls(initial_positions=['normal']),
        ValueError,
        *(
            "initial_positions must be one of ['normal', 'uniform', 'even', 'grid']",
            "['normal']",
        ),
    ),
    wrong(
        dcls(formulation=None),
        ValueError,
        "formulation must be one of ['auto', 'construct', 'direct', 'sample'], "
        'got None',
    ),
    wrong(
        dcls(interpolation='linear'),
        ValueError,
        *('interpolation must be one of', "'gauss'", "got 'linear'"),
    ),
    wrong(dcls(backend=['fft']), ValueError, 'backend must be one of', "['fft']"),
    wrong(
        large(backend='cuda'),
        ValueError,
        "['direct', 'fft', 'cpu_depthwise', 'triton', 'native']",
    ),
    wrong(dcls(padding_mode='mirror'), ValueError, 'padding_mode must', "'mirror'"),
    wrong(dcls(padding='full'), ValueError, "'same' or 'valid'", "'full'"),
    # What doesn't go together.
    wrong(
        lambda: DCLSConv2d(2, 2, kernel_count=3),
        ValueError,
        'kernel_size may be left out only where kernel_count and dilated_kernel_size',
    ),
    wrong(
        dcls(dilated_kernel_size=8),
        ValueError,
        *('dilated_kernel_size (8, 8)', 'odd number', 'change it by one'),
    ),
    wrong(
        dcls(position_axes=(0, 0)),
        ValueError,
        'position_axes must be different axes of 0..1, at least one, got (0, 0)',
    ),
    wrong(dcls(position_axes='rows'), TypeError, 'position_axes must be an', "'rows'"),
    wrong(
        dcls(position_axes=(1,), dilation=2),
        ValueError,
        *('axis 0 is dense', 'dilation must be 1'),
    ),
    wrong(dcls(initial_sigma=0.2), ValueError, "'bilinear' has no sigma: leave out"),
    wrong(
        dcls(interpolation='max', formulation='sample'),
        ValueError,
        "formulation 'sample' needs interpolation 'bilinear', got 'max'",
    ),
    wrong(
        dcls(formulation='sample', backend='fft'),
        ValueError,
        "formulation 'sample' takes no backend",
    ),
    wrong(
        dcls(initial_positions='grid', kernel_count=4),
        ValueError,
        *('make kernel_count 9 or leave it out', 'got 4 (kernel_size (3, 3))'),
    ),
    wrong(
        dcls(padding='same', stride=2),
        ValueError,
        "padding 'same' needs stride 1, got stride (2, 2)",
    ),
    wrong(
        transposed(formulation='sample'),
        ValueError,
        "formulation must be 'construct' in a transposed convolution, got 'sample'",
    ),
    wrong(
        transposed(padding_mode='reflect'),
        ValueError,
        "padding_mode must be 'zeros' in a transposed convolution, got 'reflect'",
    ),
    wrong(transposed(padding='same'), TypeError, 'padding must be an', "got 'same'"),
    wrong(
        transposed(stride=2, output_padding=2),
        ValueError,
        'output_padding must be below the stride (2, 2), got (2, 2)',
    ),
    wrong(
        lambda: transposed(stride=2)()(torch.zeros(1, 2, 8, 8), output_size=(9, 9)),
        ValueError,
        'output_size must be from [18, 18] to [19, 19] for an input of (1, 2, 8, 8)',
    ),
    wrong(
        lambda: DCLSConv3d(2, 2, 3, stride=(1, 2)),
        ValueError,
        'stride must be one integer or 3 of them',
    ),
    wrong(
        lambda: DCLSConv1d(2, 2, 3)(torch.zeros(1, 2, 8, 8)),
        ValueError,
        'the input must have 3 axes (batch, channels, 1 spatial)',
    ),
    wrong(
        lambda: dcls()()(torch.zeros(1, 3, 8, 8)), ValueError, '4 channels', '(1, 3, 8'
    ),
    # The local branch.
    wrong(
        dcls(local_size=5),
        ValueError,
        'local_size must be at most the extent, 3 along axis 0, got 5: make it smaller',
    ),
    wrong(
        dcls(dilated_kernel_size=(3, 7), local_size=(3, 9)),
        ValueError,
        'local_size must be at most the extent, 7 along axis 1, got (3, 9)',
    ),
    wrong(
        dcls(dilated_kernel_size=7, local_size=4),
        ValueError,
        'local_size must be odd to have the centre of the extent, 7 along axis 0, got',
    ),
    wrong(dcls(local_size='5'), TypeError, 'local_size must be an integer or a tuple'),
    wrong(dcls(local_size=True), TypeError, 'local_size must be an integer, got True'),
    wrong(dcls(local_size=0), ValueError, 'local_size must be at least 1, got 0'),
    wrong(
        dcls(local_size=(3,)), ValueError, 'local_size must be one integer or 2 of them'
    ),
    wrong(
        lambda: DCLSConv2d.from_conv(
            nn.Conv2d(4, 4, 5), dilated_kernel_size=9, local_size=3
        ),
        ValueError,
        *('local_size must be at least the extent', 'axis 0 has 3 for 5 in 9'),
    ),
    wrong(
        load(dcls(local_size=3)),
        StateDictError,
        *(
            'local_weight: the state_dict',
            'local branch of (3, 3)',
            'this one has none',
        ),
        'build a DCLSConv2d with local_size=(3, 3)',
    ),
    wrong(
        load(dcls(local_size=3), local_size=1),
        StateDictError,
        *('local branch of (3, 3), this one has (1, 1)', 'local_size=(3, 3)'),
    ),
    wrong(
        load(dcls(), local_size=3),
        RuntimeError,
        'Missing key(s) in state_dict: "local_weight"',
    ),
    wrong(
        load(lambda: nn.Conv2d(4, 4, 5), dilated_kernel_size=9, local_size=3),
        StateDictError,
        *('weight: the state_dict has the 5x5 kernel', 'axis 0 has 3 for 5 in 9'),
    ),
    wrong(
        dcls(branch_norms=1, local_size=3), TypeError, 'branch_norms ' + BOOLEAN + '1'
    ),
    wrong(
        dcls(branch_norms=True),
        ValueError,
        'branch_norms needs a local branch: give local_size, or leave it out',
    ),
    wrong(
        transposed(branch_norms=True, local_size=2),
        ValueError,
        'branch_norms must be False in a transposed convolution, got True',
    ),
    wrong(
        lambda: DCLSConv2d.from_conv(
            nn.Conv2d(4, 4, 3), local_size=3, branch_norms=True
        ),
        ValueError,
        'branch_norms must be False to start from a plain convolution',
    ),
    wrong(
        replace(name='1', dilated_kernel_size=9, local_size=5, branch_norms=True),
        ValueError,
        *("1 can't become a DCLSConv2d", 'branch_norms must be False to start'),
    ),
    wrong(
        load(lambda: nn.Conv2d(4, 4, 3), local_size=3, branch_norms=True),
        StateDictError,
        *('3x3 kernel of a plain convolution', 'branch_norms must be False to start'),
    ),
    wrong(
        load(dcls(local_size=3, branch_norms=True), local_size=3),
        StateDictError,
        *('the state_dict is of a layer with norms', 'build it with branch_norms=True'),
    ),
    # FlexConv.
    wrong(
        flex(crop_threshold='0.1'), TypeError, 'crop_threshold must be a number, got'
    ),
    wrong(flex(crop_threshold=1.0), ValueError, 'crop_threshold must be in (0, 1), or'),
    wrong(flex(mask_width='0.1'), TypeError, "mask_width must be a number, got '0.1'"),
    wrong(flex(mask_width=(0.1,)), ValueError, 'one positive number or 2 of them'),
    wrong(flex(mask_width=0), ValueError, 'mask_width must be one positive number'),
    wrong(
        flex(mask_width=float('nan')), ValueError, 'mask_width must be finite, got nan'
    ),
    wrong(
        flex(mask_width=None, learn_mask=False),
        ValueError,
        'learn_mask must be left out',
    ),
    wrong(flex(resolution='2'), TypeError, "resolution must be a number, got '2'"),
    wrong(
        flex(resolution=1e6),
        ValueError,
        *('resolution 1000000.0', '(9, 9) make a kernel of (8000001, 8000001), more'),
    ),
    wrong(
        flex(dilated_kernel_size=10**5 + 1),
        ValueError,
        *('dilated_kernel_size (100001, 100001)', 'more than 16777216 taps'),
    ),
    wrong(flex(resolution=-1), ValueError, 'resolution must be a positive number'),
    wrong(
        lambda: flex()().set_resolution(True), TypeError, 'resolution must be a number'
    ),
    wrong(
        flex(dilated_kernel_size=8), ValueError, 'must be odd, for a middle tap at 0'
    ),
    wrong(flex(dilated_kernel_size='half'), ValueError, "one of ['full', 'same']"),
    wrong(flex(dilated_kernel_size='full'), ValueError, "'full' needs input_size"),
    wrong(
        flex(dilated_kernel_size='full', input_size='9'),
        TypeError,
        "input_size must be an integer, got '9'",
    ),
    wrong(
        flex(input_size=9), ValueError, "input_size is for dilated_kernel_size 'full'"
    ),
    wrong(flex(padding='causal'), ValueError, "padding 'causal' needs 1 axis"),
    wrong(
        lambda: FlexConv1d(
            2, 2, padding='causal', dilated_kernel_size='full', input_size=8
        ),
        ValueError,
        "take dilated_kernel_size 'same'",
    ),
    wrong(
        flex(kernel_net='gabor'), ValueError, 'kernel_net must name one of', "'gabor'"
    ),
    wrong(flex(kernel_net=['magnet']), ValueError, "['magnet', 'siren', 'mlp']"),
    wrong(flex(kernel_net=None), ValueError, 'kernel_net must name one of', 'got None'),
    wrong(net(type='magnet', axes=2), ValueError, "kernel_net must leave out ['axes']"),
    wrong(net(type='mlp', omega_0=3), TypeError, 'unexpected keyword', 'omega_0'),
    wrong(net(type='siren', omega_0='30'), TypeError, 'omega_0 must be a number'),
    wrong(net(type='siren', omega_0=0.0), ValueError, 'omega_0 must be positive'),
    wrong(
        net(type='magnet', num_layers=0), ValueError, 'num_layers must be at least 1'
    ),
    wrong(
        net(type='mlp', hidden_channels='8'), TypeError, 'hidden_channels must be an'
    ),
    wrong(
        net(type='magnet', input_scale=float('inf')),
        ValueError,
        'kernel_net.input_scale must be finite, got inf',
    ),
    wrong(
        lambda: flex(kernel_net='mlp')().highest_frequencies(),
        ValueError,
        "only a kernel_net of type 'magnet' has a known highest frequency",
        'MLP',
    ),
    # Sharing and loading.
    wrong(
        lambda: dcls()().share_positions(nn.Conv2d(4, 4, 3)),
        TypeError,
        *('positions can only be shared with a layer that has them', 'got Conv2d'),
    ),
    wrong(lambda: dcls()().share_positions(None), TypeError, 'got NoneType'),
    wrong(
        lambda: dcls()().share_positions(dcls(dilation=2)()),
        ValueError,
        'layers that share positions must have the same extent, got (3, 3) and (5, 5)',
    ),
    wrong(
        lambda: dcls()().share_positions(dcls(interpolation='triangle')()),
        ValueError,
        'the same interpolation, got bilinear and triangle',
    ),
    wrong(
        lambda: dcls()().share_positions(dcls(kernel_count=4)()),
        ValueError,
        'positions of one shape, got (2, 4, 4, 9) and (2, 4, 4, 4)',
    ),
    wrong(
        lambda: dcls()().fix_sigma(0.1), ValueError, "'bilinear' has no sigma to fix"
    ),
    wrong(
        load(dcls(dilation=2), dilation=4),
        StateDictError,
        'P: the state_dict is of a layer of extent (5, 5), this one has (9, 9)',
    ),
    wrong(
        load(gauss(), interpolation='max'),
        StateDictError,
        "of interpolation 'gauss', the layer of 'max': build it with interpolation=",
    ),
    wrong(
        load(gauss()), StateDictError, 'SIG: the state_dict is of a layer with sigma'
    ),
    wrong(
        load(gauss(position_axes=(1, 0)), interpolation='gauss'),
        StateDictError,
        'rows stand for the spatial axes (1, 0), here for (0, 1)',
        'build it with position_axes=(1, 0)',
    ),
    wrong(
        lambda: Dcls2d(4, 4, 9, dilated_kernel_size=3).load_state_dict(
            gauss()().state_dict()
        ),
        StateDictError,
        *('axes (0, 1), here for (1, 0): load it in a DCLSConv2d', 'to_published'),
    ),
    wrong(
        lambda: Dcls2d(4, 4, 9, version='max').load_state_dict(
            Dcls2d(4, 4, 9).state_dict()
        ),
        *(StateDictError, "build it with version='gauss'"),
    ),
    wrong(
        lambda: gauss()().load_state_dict(as_published(gauss())),
        StateDictError,
        *('(1, 0), here for (0, 1)', 'dcls_mm.conversion.from_published'),
    ),
    wrong(
        plain(gauss(), interpolation='gauss'),
        StateDictError,
        *('P: the state_dict has no metadata', 'position_axes=(0, 1)', "='gauss'"),
    ),
    wrong(
        plain(dcls(interpolation='v1'), interpolation='v1'),
        StateDictError,
        *('P: the state_dict has no metadata', "version='v1'"),
    ),
    wrong(
        lambda: FlexConv2d(2, 2, 7).load_state_dict(FlexConv2d(2, 2, 9).state_dict()),
        StateDictError,
        'net.output.weight: the state_dict is of a layer of extent (9, 9)',
    ),
    # from_conv and replace_convs.
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
