"""What all tests share: seeds, tolerances, and the data beside a checkout."""

from pathlib import Path

import pytest
import torch

# Largest relative error, measured against the largest reference value, by dtype.
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}

SHARED = Path(__file__).resolve().parents[2] / 'shared'


def assert_close(actual, expected, dtype=None, factor=1):
    """Compare with the tolerance of ``dtype`` (by default that of ``actual``)."""
    assert actual.shape == expected.shape
    if expected.numel() == 0:
        return
    allowed = factor * TOLERANCE[dtype or actual.dtype]
    error = (actual.double() - expected.double()).abs().max()
    scale = expected.double().abs().max()
    assert error <= allowed * scale, f'error {error:.3g} of scale {scale:.3g}'


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture
def shared_file():
    """A file of the ``shared`` folder beside the checkout, or a skip."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f'needs {name} in the folder `shared` beside the checkout')
        return path

    return find
