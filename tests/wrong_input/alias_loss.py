"""Wrong arguments of the anti-aliasing loss."""

import torch

from dcls_mm.checks.config_checks import ConfigError
from dcls_mm.engine.hooks import AliasLossHook
from dcls_mm.functional.continuous import alias_penalty

from . import wrong

ROWS = [
    wrong(
        lambda: AliasLossHook(weight=-0.1),
        ConfigError,
        'AliasLossHook.weight',
        'got -0.1',
    ),
    wrong(
        lambda: AliasLossHook(deviations='2'),
        ConfigError,
        'AliasLossHook.deviations',
        "got '2'",
    ),
    wrong(
        lambda: AliasLossHook(with_mask='no'),
        ConfigError,
        "AliasLossHook.with_mask must be True or False, got 'no'",
    ),
    wrong(
        lambda: AliasLossHook(method='together'),
        ConfigError,
        "AliasLossHook.method must be one of ['per_filter', 'summed', 'per_factor']",
        "got 'together'",
    ),
    wrong(lambda: AliasLossHook(method=None), ConfigError, 'method', 'got None'),
    wrong(
        lambda: alias_penalty(torch.ones(3), 4.0, method='sum'),
        ValueError,
        'method must be one of',
        "got 'sum'",
    ),
    wrong(
        lambda: alias_penalty(torch.tensor(3.0), 4.0),
        ValueError,
        'filters must have the shape (filters,), got ()',
    ),
    wrong(
        lambda: alias_penalty(torch.ones(0), 4.0),
        ValueError,
        'filters must have the shape (filters,), got (0,)',
    ),
]
