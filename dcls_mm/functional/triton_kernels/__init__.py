"""Triton kernels for CUDA: the depthwise convolution, its gradients, and the construct.

The modules here import triton, so nothing imports them before :func:`missing` returned
None. They launch kernels on plain tensors: autograd, autocast and torch.compile are the
concern of ``functional/operators/``.
"""

import functools
import importlib.util
from importlib.metadata import PackageNotFoundError, version

import torch

# Older versions are not tested; 3.6 is the one of torch 2.11.
LEAST_VERSION = (3, 6)

# Whether benchmarks/RESULTS-GPU.md holds a run on a GPU. Until then the kernels have
# only been compiled and interpreted, and serve just those who name the backend.
RECORDED = False

# Options of every launch. Products and sums are fused, as up to 3.9 by default.
OPTIONS = {'enable_fp_fusion': True}


@torch.compiler.assume_constant_result
def missing() -> str | None:
    """Return why triton can't be used, as a sentence that says what to do, or None."""
    return _missing()


@functools.cache
def _missing() -> str | None:
    wanted = '.'.join(map(str, LEAST_VERSION))
    found = importlib.util.find_spec('triton')
    if found is None or found.origin is None:  # just some folder of that name
        return (
            'it needs triton, which is not installed; the CUDA builds of torch for '
            f"Linux bring it along (pip install 'triton>={wanted}')"
        )
    try:
        installed = version('triton')
    except PackageNotFoundError:  # a build of its own, without metadata
        return None
    if tuple(int(part) for part in installed.split('.')[:2]) < LEAST_VERSION:
        return (
            f'it needs triton {wanted} or newer, got {installed}: update torch, which '
            'brings its own triton along'
        )
    return None
