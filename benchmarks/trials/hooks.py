"""Hooks of the trials: what a training did, and RF-Next."""

import json
import os
import statistics
import time
from pathlib import Path

import torch
from mmcv.cnn.rfsearch import RFSearchHook
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor
from trials.lite0 import depthwise_convs

from dcls_mm.analysis import collect_elements, compute_statistics
from dcls_mm.layers.positions import LearnedPositions


@HOOKS.register_module()
class RecordHook(Hook):
    """A hook that writes a JSON file about a finished training.

    Args:
        path: the file; it is there only if the training came to its end.
        about: what to write besides metrics, times and positions.
    """

    priority = 'LOWEST'

    def __init__(self, path: str, about: dict):
        self.path = Path(path)
        self.about = dict(about)
        self.steps: list[float] = []
        self.validations: list[dict] = []

    def before_train(self, runner) -> None:
        self._started = self._positions(runner)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self._began = time.perf_counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.steps.append(time.perf_counter() - self._began)

    def after_val_epoch(self, runner, metrics=None) -> None:
        values = {key: float(value) for key, value in (metrics or {}).items()}
        at = dict(step=len(self.steps), seconds=sum(self.steps))
        self.validations.append(at | values)

    def after_train(self, runner) -> None:
        record = dict(
            self.about,
            steps=len(self.steps),
            step_seconds=statistics.median(self.steps),
            parameters=sum(p.numel() for p in runner.model.parameters()),
            validations=self.validations,
            positions=self._described(runner),
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_suffix('.tmp')
        written.write_text(json.dumps(record, indent=1) + '\n')
        os.replace(written, self.path)

    def _positions(self, runner) -> dict[str, Tensor]:
        return {
            name: module.P.detach().clone()
            for name, module in runner.model.named_modules()
            if isinstance(module, LearnedPositions)
        }

    def _described(self, runner) -> list[dict]:
        """Return figures on each set of positions: spread, travel, occupied extent."""
        now = self._positions(runner)
        if not now:
            return []
        described = []
        figures = compute_statistics(collect_elements(runner.model))
        for name, layer in figures.items():
            travel = None
            if now[name].shape == self._started[name].shape:
                moved = now[name] - self._started[name]
                travel = moved.square().sum(0).sqrt().mean().item()
            described.append(
                dict(
                    layer=name,
                    extent=list(layer.extent),
                    count=layer.count,
                    spread=layer.spread,
                    held_extent=layer.held_extent,
                    crowded=layer.crowded,
                    border=layer.border,
                    travel=travel,
                )
            )
        return described


# Modules whose convolutions stay, by parts of their names: what is not depthwise.
OTHER_PARTS = (
    *('downsample_layers', '_conv_stem', 'neck'),
    *('decode_head', 'auxiliary_head', 'rpn_head', 'roi_head'),
)


@HOOKS.register_module()
class RFNextHook(RFSearchHook):
    """RF-Next's search for dilations in the backbone, over the whole training.

    mmcv's hook expects that the training tool calls ``init_model``, which mmdet's and
    mmseg's don't; here :mod:`trials.train` does. What is evaluated is the network as
    trained, whose branches share their weights.

    Source: arXiv 2206.06637.
    """

    def __init__(self):
        search = dict(
            step=0,
            max_step=100,
            search_interval=80,
            exp_rate=0.5,
            init_alphas=0.01,
            mmin=1,
            mmax=4,
            num_branches=3,
            skip_layer=[*OTHER_PARTS, *depthwise_convs(stride_one=False)],
        )
        config = dict(search=search)
        super().__init__('search', config, by_epoch=False, verbose=False)

    def step(self, model: torch.nn.Module, work_dir: str) -> None:
        """Widen or narrow the dilations when it is time; write no files."""
        search = self.config['search']
        search['step'] += 1
        if search['step'] % search['search_interval'] == 0:
            self.estimate_and_expand(model)
