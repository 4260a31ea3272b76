"""Wrong arguments of FlexConv layers."""

from dcls_mm.layers import FlexConv1d, FlexConv2d

from . import wrong
from .layers import BOOLEAN


def flex(**options):
    return lambda: FlexConv2d(2, 2, **{'dilated_kernel_size': 9, **options})


def net(**options):
    return flex(kernel_net=options)


ROWS = [
    wrong(flex(bias='False'), TypeError, 'bias ' + BOOLEAN + "'False'"),
    wrong(flex(learn_mask='no'), TypeError, 'learn_mask ' + BOOLEAN + "'no'"),
    wrong(
        net(type='magnet', rotated='yes'),
        TypeError,
        *("'rotated': 'yes'", 'kernel_net.rotated ' + BOOLEAN),
    ),
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
]
