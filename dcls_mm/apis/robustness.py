"""Accuracy on corrupted images, for mmdet and mmseg configs alike.

The corruptions are those of Hendrycks and Dietterich (arXiv 1903.12261), drawn by the
library `imagecorruptions`. The two figures are those of Michaelis et al. (arXiv
1907.07484): the mean performance under corruption, over kinds and severities (mPC), and
its ratio to the performance on clean images (rPC).
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
    """Resolve groups of corruptions, such as 'noise', to their members.

    Args:
        names: names of corruptions and groups (``GROUPS``).

    Raises:
        ConfigError: a name is unknown, or the library is not installed.
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
                f'--corruptions {name}: must be one of {", ".join([*GROUPS, *known])}'
            )
        members = get_corruption_names(name) if name in GROUPS else [name]
        chosen.update(dict.fromkeys(members))
    return list(chosen)


def corrupt_images(dataset: ConfigDict, corruption: str, severity: int) -> None:
    """Make a data set's config corrupt each image after loading it.

    Args:
        dataset: config of a data set of mmdet or mmseg; changed in place.
        corruption: name of a corruption.
        severity: 1 to 5.

    Raises:
        ConfigError: the pipeline loads no images.
    """
    corrupt = {'type': 'CorruptImage', 'corruption': corruption, 'severity': severity}
    for key, one in innermost_datasets(dataset, 'test_dataloader.dataset').items():
        names = [type_name(step) for step in one['pipeline']]
        if 'LoadImageFromFile' not in names:
            raise ConfigError(
                f'{key}.pipeline: has no LoadImageFromFile, after which images would '
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
    """Evaluate a model on the test set, then on corrupted versions of it.

    Args:
        config: the file.
        checkpoint: the weights: a path, or a URL that mmengine knows.
        corruptions: names of corruptions and groups; 'common' has the benchmark's 15.
        severities: from 1 to 5.
        out: the JSON file for the results, rewritten after each evaluation.
        metrics: metrics that the clean evaluation must give; by default any will do.
        options: see ``prepare_test``.

    Returns:
        Key 'clean': the metrics by name. Key 'corrupted': the metrics by name, per
        corruption and severity (as text).

    Raises:
        ConfigError: the config or an argument can't be used, or the clean evaluation
            lacks a metric.
        CheckpointError: the checkpoint can't be read, or belongs to another model.
    """
    names = corruption_names(corruptions)
    for severity in severities:
        if severity not in SEVERITIES:
            raise ConfigError(f'--severities {severity}: must be from 1 to 5')
    if out:
        folder = os.path.dirname(out) or '.'
        if not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
            raise ConfigError(f'--out {out}: {folder} is not a writable folder')
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
    if channels not in (None, 1, 3):  # CorruptImage refuses them too, but later
        raise ConfigError(
            '--corruptions: the corruptions are defined for 1 or 3 channels, but the '
            f'model takes {channels}'
        )
    results = {'clean': runner.test(), 'corrupted': {name: {} for name in names}}
    for metric in metrics or usual_metrics(results):  # now, not hours later
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
    """Turn a refusal of ``CorruptImage`` into a ConfigError.

    One from a dataloader's process arrives within the text of its traceback.
    """
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
    """Compute mPC and rPC of a metric.

    Args:
        results: the return value of ``evaluate_corrupted``.
        metric: a metric of the evaluation; higher must be better.

    Returns:
        'clean'; 'corrupted', the value per corruption and severity; 'mPC' in the
        metric's unit; 'rPC', a ratio, or None if 'clean' is 0.

    Raises:
        ConfigError: the evaluation gave no such metric.
    """
    _check_evaluated(results, metric)
    # mmdet gives no metrics if nothing at all is detected.
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
            f'{", ".join(results["clean"]) or "no metrics"}'
        )


def usual_metrics(results: dict[str, Any]) -> list[str]:
    """Return the metrics that papers report, or all metrics if there are none of those.

    Raises:
        ConfigError: there are no metrics at all.
    """
    if not results['clean']:
        raise ConfigError(
            'the evaluation of clean images gave no metrics, so there is nothing to '
            'compare with; mmdet gives none if nothing at all is detected'
        )
    found = [metric for metric in _USUAL_METRICS if metric in results['clean']]
    return found or list(results['clean'])
