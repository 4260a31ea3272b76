"""A report on the positions that a model learned, with advice."""

from dataclasses import replace
from typing import Any

from .. import analysis, visualization
from ..analysis.progress import start_in, travelled
from ..checkpoint.matching import load_matching
from .outputs import check_folder, label, write_file, write_picture
from .trained import load_trained, read_trained
from .visualize import model_elements


def report_tuning(
    config: str,
    checkpoint: str,
    out: str | None = None,
    json: bool = False,
    cfg_options: dict[str, Any] | None = None,
    since: str | None = None,
) -> str:
    """Report on the positions of a model, with advice on what to change.

    Args:
        config, checkpoint, cfg_options: see :func:`.plot_kernels`.
        out: the folder for report.md, report.json and pictures, if any.
        json: return JSON instead of a table.
        since: an earlier checkpoint of the training, from which travel is measured; by
            default its start, if the checkpoint tells (our hooks keep it there).

    Returns:
        The report.

    Raises:
        ConfigError, CheckpointError: see :func:`.plot_kernels`; also about ``since``.
    """
    folder = None if out is None else check_folder(out)
    model, _, trained = load_trained(config, checkpoint, cfg_options)
    elements = model_elements(model, checkpoint)
    if since is None:
        start = start_in(trained) or {}
    else:
        load_matching(model, read_trained(since), since)
        earlier = model_elements(model, since)
        start = {name: layer.positions for name, layer in earlier.items()}
    travels = travelled(elements, start)
    statistics = {
        name: replace(layer, travel=travels.get(name))
        for name, layer in analysis.compute_statistics(elements).items()
    }
    advice = analysis.advise(statistics)
    if folder is not None:
        pictures = {'histograms.png': visualization.draw_histograms(elements)}
        if any(len(layer.axes) == 2 for layer in elements.values()):
            pictures['positions.png'] = visualization.draw_positions(elements)
        for name, picture in pictures.items():
            write_picture(folder / name, picture)
        title = f'Positions of {label(config, checkpoint)}'
        page = analysis.as_markdown(statistics, advice, title, list(pictures))
        write_file(
            folder / 'report.json', analysis.as_json(statistics, advice).encode()
        )
        write_file(folder / 'report.md', page.encode())
    form = analysis.as_json if json else analysis.as_text
    return form(statistics, advice)
