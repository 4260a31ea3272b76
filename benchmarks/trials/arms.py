"""The arms of the trials: what replaces the depthwise convolutions, and how it learns.

An arm changes a config whose network is plain. Heads, steps, optimizer, decay and seeds
are those of the task.
"""

from typing import Any, NamedTuple

ELEMENTS = 34
# With the 25 weights of a local 5x5 branch there are about as many weights as before.
ELEMENTS_BESIDE_LOCAL = 17
LOCAL_SIZE = 5
PLAIN_SIZE = 7
EXTENT = 17

# Multipliers of the learning rate for positions.
PUBLISHED_RATE, FAST_RATE = 5.0, 50.0


class Arm(NamedTuple):
    """A way to convolve.

    Attributes:
        layer: config of the depthwise convolutions, or one per stage of ConvNeXt; the
            plain network's if None.
        position_rate: multiplier of the learning rate for positions.
        hooks: configs of further hooks.
    """

    layer: dict[str, Any] | list[dict[str, Any]] | None
    position_rate: float | None = None
    hooks: tuple[dict[str, Any], ...] = ()

    @property
    def is_dcls(self) -> bool:
        """Whether its layers have positions."""
        return self.position_rate is not None


def dcls(rate: float = PUBLISHED_RATE, count: int | None = ELEMENTS, **options) -> Arm:
    """Return an arm of DCLS layers with positions in 17x17 pixels."""
    layer = dict(type='DCLSConv2d', dilated_kernel_size=EXTENT, **options)
    if count is not None:
        layer['kernel_count'] = count
    return Arm(layer, rate)


def local(rate: float = PUBLISHED_RATE, **options) -> Arm:
    """Return an arm of fewer elements beside a dense 5x5 kernel."""
    return dcls(rate, ELEMENTS_BESIDE_LOCAL, local_size=LOCAL_SIZE, **options)


def _by_stage(*options: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(dcls().layer, **more) for more in options]  # type: ignore[arg-type]


NORMAL = dict(initial_positions='normal')
WIDER = dict(initial_positions='normal', initial_spread=2.0)
EVEN = dict(initial_positions='even')

# For networks that start from random weights.
FRESH: dict[str, Arm] = {
    'plain': Arm(None),
    'dilated': Arm(dict(type='Conv2d', kernel_size=7, dilation=2)),
    'dense': Arm(dict(type='LargeKernelConv2d', kernel_size=EXTENT)),
    'flexconv': Arm(
        dict(type='FlexConv2d', dilated_kernel_size=EXTENT, mask_width=0.2)
    ),
    'rf-next': Arm(None, hooks=(dict(type='RFNextHook'),)),
    'published': dcls(**NORMAL),
    'published-fast': dcls(FAST_RATE, **NORMAL),
    'wider': dcls(**WIDER),
    'wider-fast': dcls(FAST_RATE, **WIDER),
    'even': dcls(**EVEN),
    'even-fast': dcls(FAST_RATE, **EVEN),
    'even-frozen': dcls(**EVEN, learn_positions=False),
    'stages': Arm(_by_stage(NORMAL, WIDER, EVEN, EVEN), PUBLISHED_RATE),
    'local-even': local(**EVEN),
    'local-fast': local(FAST_RATE, **EVEN),
    'local-frozen': local(**EVEN, learn_positions=False),
    'local-normal': local(**NORMAL),
    # As many weights more as the elements have. The recorded ones were set to 0 by a
    # hook, which gives the same start as elements_from_zero.
    'beside-plain': dcls(
        FAST_RATE,
        ELEMENTS_BESIDE_LOCAL,
        local_size=PLAIN_SIZE,
        elements_from_zero=True,
        **EVEN,
    ),
    'adapted': Arm(
        dict(type='DCLSConv2d', kernel_count=ELEMENTS, dilated_kernel_size=7),
        FAST_RATE,
        hooks=(dict(type='AdaptKernelsHook', interval=40, largest_extent=EXTENT),),
    ),
}

# For networks that start from trained weights, whose own kernels have 3x3 and 5x5 taps.
TRAINED: dict[str, Arm] = {
    'plain': Arm(None),
    'rf-next': Arm(None, hooks=(dict(type='RFNextHook'),)),
    'grid': dcls(count=None),
    'grid-fast': dcls(FAST_RATE, count=None),
    'local-even': local(**EVEN),
    'local-fast': local(FAST_RATE, **EVEN),
    'local-frozen': local(**EVEN, learn_positions=False),
}
