"""Accuracy on corrupted images, for mmdet and mmseg configs alike.

The corruptions are those of Hendrycks and Dietterich (arXiv 1903.12261), drawn by the
library `imagecorruptions`. The two figures are those of Michaelis et al. (arXiv
1907.07484): the mean performance under corruption, over kinds and severities (mPC), and
the same relative to the performance on the images as they are (rPC).
"""

import copy
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from statistics import mean
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.fileio import dump

from ..checkpoint.matching import unwrapped
from ..checkpoint.mmengine_loaders import as_data
from ..checks.channels import input_channels
from ..checks.config_tree import innermost_datasets, type_name
from ..checks.errors import ConfigError
from ..engine.hooks.checkpoint_match_hook import CheckpointMatchHook
from .outputs import write_file
from .runner import build_runner
from .test import prepare_test

SEVERITIES = (1, 2, 3, 4, 5)
GROUPS = ('common', 'all', 'noise', 'blur', 'weather', 'digital', 'validation')
_USUAL_METRICS = ('coco/bbox_mAP', 'coco/segm_mAP', 'mIoU')


def corruption_names(names: Sequence[str]) -> list[str]:
    """Resolves groups of corruptions, such as 'noise', to their members.

    Args:
        names: Of corruptions, and of groups (``GROUPS``).

    Raises:
        ConfigError: there is no such corruption, or no library to make it.
    """
    if find_spec('imagecorruptions') is None:
        raise ConfigError(
            'corrupting images needs imagecorruptions, which is not installed; '
            'pip install imagecorruptions-imaug'
        )
    from imagecorruptions import get_corruption_names

    known = get_corruption_names('all')
    chosen: dict[str, None] = {}
    for name in names:
        if name not in (*GROUPS, *known):
            raise ConfigError(
                f'--corruptions {name}: must be among {", ".join([*GROUPS, *known])}'
            )
        members = get_corruption_names(name) if name in GROUPS else [name]
        chosen.update(dict.fromkeys(members))
    return list(chosen)


def corrupt_images(dataset: ConfigDict, corruption: str, severity: int) -> None:
    """Makes a dataset's config corrupt each image after it is loaded.

    Args:
        dataset: Of mmdet or mmseg; changed in place.
        corruption: The name of one.
        severity: 1 to 5.

    Raises:
        ConfigError: its pipeline loads no images.
    """
    corrupt = {'type': 'CorruptImage', 'corruption': corruption, 'severity': severity}
    for key, one in innermost_datasets(dataset, 'test_dataloader.dataset').items():
        names = [type_name(step) for step in one['pipeline']]
        if 'LoadImageFromFile' not in names:
            raise ConfigError(
                f'{key}.pipeline: has no LoadImageFromFile, after which images could '
                'be corrupted'
            )
        position = names.index('LoadImageFromFile') + 1
        one['pipeline'].insert(position, ConfigDict(corrupt))


@as_data()
def evaluate_corrupted(
    config: str,
    checkpoint: str,
    corruptions: Sequence[str] = ('common',),
    severities: Sequence[int] = SEVERITIES,
    out: str | None = None,
    metrics: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Evaluates a model on the test set, then on the test set corrupted.

    Args:
        config: The file.
        checkpoint: The weights: a path, or a URL that mmengine knows.
        corruptions: Names of corruptions and of groups of them; 'common' are the 15
            of the benchmark.
        severities: From 1 to 5.
        out: The JSON file that gets the results, anew after each evaluation.
        metrics: Those that are wanted, of which the first evaluation must have all; by
            default it must have any.
        options: See ``prepare_test``.

    Returns:
        Key 'clean': the metrics by name. Key 'corrupted': for each corruption, for
        each severity (as text), the metrics by name.

    Raises:
        ConfigError: the config or an argument can't be used, or the images as they
            are give no such metrics.
        CheckpointError: the checkpoint can't be read, or is of another model.
    """
    names = corruption_names(corruptions)
    for severity in severities:
        if severity not in SEVERITIES:
            raise ConfigError(f'--severities {severity}: must be from 1 to 5')
    if out:
        folder = os.path.dirname(out) or '.'
        if not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
            raise ConfigError(f'--out {out}: {folder} is no folder to write to')
    cfg, notices = prepare_test(config, checkpoint, **options)
    dataloaders = {
        (name, severity): _corrupted(cfg, name, severity)
        for name in names
        for severity in severities
    }
    cfg.randomness = {'seed': 0, **cfg.get('randomness', {})}  # of the noise
    runner = build_runner(cfg, notices, ['test'])
    runner.register_hook(CheckpointMatchHook(checkpoint))
    backbone = getattr(unwrapped(runner.model), 'backbone', None)
    channels = None if backbone is None else input_channels(backbone)
    if channels not in (None, 1, 3):  # CorruptImage refuses such images too, but later
        raise ConfigError(
            '--corruptions: the corruptions are defined for 1 or 3 channels, the model '
            f'takes {channels}'
        )
    results = {'clean': runner.test(), 'corrupted': {name: {} for name in names}}
    for metric in metrics or usual_metrics(results):  # hours before they are needed
        _check_evaluated(results, metric)
    for (name, severity), dataloader in dataloaders.items():
        runner.logger.info(f'corruption: {name}, severity {severity}')
        loop = {'type': 'TestLoop', **cfg.test_cfg, 'dataloader': dataloader}
        with _sentences_of_corrupt_image():
            found = runner.build_test_loop(loop).run()
        results['corrupted'][name][str(severity)] = found
        if out:
            text = dump(results, file_format='json', indent=1)  # numpy's numbers too
            write_file(out, text.encode())
    return results


@contextmanager
def _sentences_of_corrupt_image() -> Iterator[None]:
    """Makes a refusal of ``CorruptImage`` a ConfigError, also one from a dataloader's
    process, whose traceback it then holds."""
    try:
        yield
    except ValueError as error:
        sentence = re.search('CorruptImage: (.*)', str(error))
        if not sentence:
            raise
        raise ConfigError(f'--corruptions: {sentence[1]}') from error


def _corrupted(cfg: Config, name: str, severity: int) -> ConfigDict:
    dataloader = copy.deepcopy(cfg.test_dataloader)
    corrupt_images(dataloader.dataset, name, severity)
    return dataloader


def summarize(results: dict[str, Any], metric: str) -> dict[str, Any]:
    """Computes mPC and rPC of a metric.

    Args:
        results: As ``evaluate_corrupted`` returns them.
        metric: One that the evaluation gave; the more the better.

    Returns:
        'clean'; 'corrupted', for each corruption the value by severity; 'mPC' in the
        metric's unit; 'rPC', a ratio, or None where 'clean' is 0.

    Raises:
        ConfigError: the evaluation gave no such metric.
    """
    _check_evaluated(results, metric)
    # mmdet gives no metrics where nothing at all is detected.
    corrupted = {
        name: {level: found.get(metric, 0.0) for level, found in row.items()}
        for name, row in results['corrupted'].items()
    }
    clean = results['clean'][metric]
    overall = mean(mean(row.values()) for row in corrupted.values())
    return {
        'clean': clean,
        'corrupted': corrupted,
        'mPC': overall,
        'rPC': overall / clean if clean else None,
    }


def _check_evaluated(results: dict[str, Any], metric: str) -> None:
    if metric not in results['clean']:
        raise ConfigError(
            f'--metrics {metric}: was not evaluated; there are '
            f'{", ".join(results["clean"]) or "none"}'
        )


def usual_metrics(results: dict[str, Any]) -> list[str]:
    """The metrics that papers report, or all where there is none of those.

    Raises:
        ConfigError: there are no metrics at all.
    """
    if not results['clean']:
        raise ConfigError(
            'the evaluation gave no metrics, as mmdet does where nothing at all is '
            'detected: there is nothing to compare with'
        )
    found = [metric for metric in _USUAL_METRICS if metric in results['clean']]
    return found or list(results['clean'])
