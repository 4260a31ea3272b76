"""What all tests share: options, seeds, tolerances and data outside the checkout."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from dcls_mm.functional import native_code

# Largest error by dtype, relative to the largest reference value.
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}

SHARED = Path(__file__).resolve().parents[2] / 'shared'

# The files, and single tests, that take most of the time; `make test-fast` skips them.
SLOW = {
    'test_a_config_of_pure_python_trains_and_is_overridden',
    'test_a_config_of_pure_python_with_data_inside_others',
    'test_adapt_kernels_ddp.py',
    'test_an_interruption_ends_the_command_and_its_children',
    'test_analysis_tools.py',
    'test_atomic_checkpoint_hook.py',
    'test_backends_agree.py',
    'test_benchmarks.py',
    'test_checkpoint_entries.py',
    'test_compare_configs.py',
    'test_compiled.py',
    'test_config_inheritance.py',
    'test_configs.py',
    'test_conftest.py',
    'test_construction_operator.py',
    'test_dataset_checks.py',
    'test_demo.py',
    'test_distinct_names_hook.py',
    'test_distributed.py',
    'test_execution.py',
    'test_export.py',
    'test_fold.py',
    'test_formats.py',
    'test_fuzz.py',
    'test_generated.py',
    'test_get_flops.py',
    'test_gpu_benchmark.py',
    'test_gradients_of_gradients',
    'test_hook_pairs.py',
    'test_hook_pairs_ddp.py',
    'test_interpreted.py',
    'test_launchers.py',
    'test_learning_trials.py',
    'test_local_options.py',
    'test_model_converters.py',
    'test_model_states.py',
    'test_native_building.py',
    'test_our_configs_fit',
    'test_packaging.py',
    'test_predict.py',
    'test_robustness.py',
    'test_rotated.py',
    'test_small_models.py',
    'test_sparse.py',
    'test_the_rest_stays_a_product',
    'test_tool_matrix.py',
    'test_train_and_test.py',
    'test_train_resume_and_test',
    'test_training_form.py',
    'test_update_zoo.py',
    'test_wrong_weights.py',
    'test_zoo.py',
}


# What tests with the mark 'timm' need; only the stack of that name has it.
TIMM_PACKAGES = ('timm', 'torchvision', 'transformers')
LACKING = [name for name in TIMM_PACKAGES if find_spec(name) is None]

# Collected only in processes of their own, which tests/test_triton starts.
TRITON = os.environ.get('TRITON_INTERPRET')
collect_ignore = [
    f'test_triton/{folder}'
    for folder, setting in (('interpreted', '1'), ('compiled', '0'))
    if setting != TRITON
]


def pytest_addoption(parser):
    parser.addoption(
        '--require-oracles',
        action='store_true',
        help='fail, not skip, the tests that need a missing package or compiled part',
    )


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: left out by `make test-fast`')
    config.addinivalue_line('markers', 'timm: run by `make test STACK=timm`')
    if config.getoption('--require-oracles'):
        pytest.importorskip = _failing(pytest.importorskip)
        config.pluginmanager.register(_RequiredPart(native_code.missing()))


def pytest_runtest_setup(item):
    """Skip what needs the stack 'timm'; inside that stack --require-oracles fails it.

    Other stacks don't have its packages, so there a test is skipped in any case.
    """
    if item.get_closest_marker('timm') is None or not LACKING:
        return
    reason = f'needs {", ".join(LACKING)}: `make test STACK=timm` has them'
    required = item.config.getoption('--require-oracles')
    if required and os.environ.get('STACK') == 'timm':
        pytest.fail(f'--require-oracles: {reason}', pytrace=False)
    pytest.skip(reason)


def pytest_collection_modifyitems(items):
    for item in items:
        if SLOW & {item.path.name, getattr(item, 'originalname', None)}:
            item.add_marker(pytest.mark.slow)
    # First, so that no process is left with a slow file at the end.
    items.sort(key=lambda item: item.path.name not in SLOW)


def _failing(importorskip):
    """Return an ``importorskip`` that fails instead of skipping."""

    def require(*arguments, **options):
        try:
            return importorskip(*arguments, **options)
        except pytest.skip.Exception as skipped:
            pytest.fail(f'--require-oracles: {skipped.msg}', pytrace=False)

    return require


class _RequiredPart:
    """Turns tests that were skipped for want of the compiled part into failures."""

    def __init__(self, missing):
        self.missing = missing

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        report = yield
        if self.missing and report.skipped and self.missing in str(report.longrepr):
            report.outcome = 'failed'
            report.longrepr = f'--require-oracles: {self.missing}'
        return report


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
    """Find a file in the ``shared`` folder beside the checkout, or skip the test."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f'needs {name} in the folder `shared` beside the checkout')
        return path

    return find
