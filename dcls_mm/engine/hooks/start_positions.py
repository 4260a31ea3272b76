"""The positions with which a training began, kept in its checkpoints."""

import numpy as np
import torch

from ...checkpoint.matching import unwrapped


def note_start(runner) -> None:
    """Note the positions, unless a resumed training has its initial ones.

    They are part of the message hub, which mmengine saves and resumes.
    """
    from ...analysis import collect_elements
    from ...analysis.progress import START

    if runner.iter and runner.message_hub.get_info(START) is not None:
        return
    elements = collect_elements(unwrapped(runner.model))
    start = {
        name: torch.from_numpy(layer.positions) for name, layer in elements.items()
    }
    runner.message_hub.update_info(START, ((runner.epoch, runner.iter), start))


def start_positions(runner) -> tuple[tuple[int, int], dict[str, np.ndarray]]:
    """Return the epoch and iteration of the start, and its positions by layer."""
    from ...analysis.progress import START

    begin, start = runner.message_hub.get_info(START)
    if not isinstance(begin, tuple):  # as version 0.2 kept it, of either kind
        begin = begin, begin
    return begin, {name: positions.numpy() for name, positions in start.items()}
