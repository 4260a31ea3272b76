"""How much Python a training step of one layer goes through, which small images pay."""

import sys
from pathlib import Path

import pytest
import torch

import dcls_mm
from dcls_mm.layers import DCLSConv1d, DCLSConv2d

PACKAGE = str(Path(dcls_mm.__file__).parent)
LARGE = dict(kernel_count=34, dilated_kernel_size=17, padding=8, groups=96)

# Name -> (layer, size of the image, its memory format, frames and files at most).
STEPS = {
    'depthwise': (lambda: DCLSConv2d(96, 96, **LARGE), (56, 56), None, 110, 12),
    'channels_last': (
        lambda: DCLSConv2d(96, 96, **LARGE),
        *((56, 56), torch.channels_last, 110, 12),
    ),
    'constructed': (
        lambda: DCLSConv2d(96, 96, formulation='construct', **LARGE),
        *((56, 56), None, 65, 10),
    ),
    'gauss': (
        lambda: DCLSConv2d(96, 96, interpolation='gauss', **LARGE),
        *((56, 56), None, 70, 12),
    ),
    'dense': (
        lambda: DCLSConv2d(8, 8, kernel_count=5, dilated_kernel_size=7, padding=3),
        *((14, 14), None, 50, 10),
    ),
    '1-d': (
        lambda: DCLSConv1d(8, 8, 5, padding=2, groups=8, dilated_kernel_size=17),
        *((64,), None, 110, 12),
    ),
}


def own_frames(step):
    """(file, function) of each Python frame of the package's own."""
    seen = []

    def trace(frame, event, _):
        code = frame.f_code
        if event == 'call' and code.co_filename.startswith(PACKAGE):
            seen.append((code.co_filename, code.co_name))

    before = sys.getprofile()
    sys.setprofile(trace)
    try:
        step()
    finally:
        sys.setprofile(before)
    return seen


@pytest.mark.parametrize('name', STEPS)
def test_a_step_is_straight(name):
    build, size, memory_format, most_frames, most_files = STEPS[name]
    layer = build()
    x = torch.randn(1, layer.in_channels, *size)
    if memory_format is not None:
        x = x.contiguous(memory_format=memory_format)
    x.requires_grad_()
    layer(x).sum().backward()  # what is done once only
    frames = own_frames(lambda: layer(x).sum().backward())
    assert 10 < len(frames) <= most_frames, frames
    assert len({file for file, _ in frames}) <= most_files
