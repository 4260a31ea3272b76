"""These tests need timm; `make test STACK=timm` runs them."""

import pytest


@pytest.fixture(autouse=True)
def needs_timm(timm_stack):
    """Skip the tests, or fail with --require-oracles in the stack that has timm."""
    timm_stack('timm')
