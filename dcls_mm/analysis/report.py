"""The figures and the advice as text, Markdown and JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from textwrap import fill
from typing import NamedTuple

from .advice import Advice
from .statistics import LayerStatistics


class Column(NamedTuple):
    """A column's heading, what it means, and how to fill it."""

    heading: str
    meaning: str
    value: Callable[[LayerStatistics], str]


def _sigma(layer: LayerStatistics) -> str:
    return f'{layer.sigma.mean:.2f}±{layer.sigma.std:.2f}' if layer.sigma else '-'


def _travel(layer: LayerStatistics) -> str:
    return '-' if layer.travel is None else f'{layer.travel:.2f}'


def _difference(layer: LayerStatistics) -> str:
    difference = layer.block_difference
    return '-' if difference is None else f'{difference:.2f}'


COLUMNS = (
    Column(
        'layers',
        'first layer, and how many more share its positions',
        lambda layer: (
            layer.layers[0] + (f' +{len(layer.layers) - 1}' if layer.shared else '')
        ),
    ),
    Column(
        'extent',
        'taps along the learned axes',
        lambda layer: 'x'.join(map(str, layer.extent)),
    ),
    Column('count', 'elements per kernel', lambda layer: str(layer.count)),
    Column(
        'spread',
        'standard deviation of the positions in pixels',
        lambda layer: f'{layer.spread:.2f}',
    ),
    Column(
        'travel',
        'mean distance of the elements from where they began, in pixels',
        _travel,
    ),
    Column(
        'occupied',
        'twice the 95th percentile of the distance from the centre, by the extent',
        lambda layer: f'{layer.occupied:.0%}',
    ),
    Column(
        'reach',
        'fraction of the way to the limit that contains 99% of the elements',
        lambda layer: f'{layer.reach:.0%}',
    ),
    Column(
        'border',
        'elements within half a pixel of the limit, or beyond',
        lambda layer: f'{layer.border:.1%}',
    ),
    Column(
        'even',
        'what border would be with evenly spread elements',
        lambda layer: f'{layer.even_border:.1%}',
    ),
    Column(
        'crowded',
        'elements closer than a pixel to another one',
        lambda layer: f'{layer.crowded:.0%}',
    ),
    Column(
        'taps',
        'how many taps are nearest to some element, mean over kernels',
        lambda layer: f'{layer.distinct:.1f}',
    ),
    Column('sigma', 'mean and standard deviation of |SIG| in pixels', _sigma),
    Column(
        'blocks',
        'largest Kolmogorov-Smirnov distance between where two layers that share, or '
        'could share, positions have their weight',
        _difference,
    ),
)


def as_text(statistics: Mapping[str, LayerStatistics], advice: Sequence[Advice]) -> str:
    """Write a table, what its columns mean, and the advice."""
    rows = _table(statistics)
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        '  '.join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        )
        for row in rows
    ]
    lines.append('')
    lines += [f'{column.heading:<8} {column.meaning}' for column in COLUMNS]
    lines += ['', 'Advice' if advice else 'No advice: nothing stands out.']
    for one in advice:
        lines += ['', f'* {one.name}']
        lines += [f'  {name}: {finding}' for name, finding in one.findings.items()]
        lines += [
            fill(f'{word}: {text}.', 80, initial_indent='  ', subsequent_indent='  ')
            for word, text in (('Try', one.remedy), ('Why', one.reason))
        ]
    return '\n'.join(lines)


def as_markdown(
    statistics: Mapping[str, LayerStatistics],
    advice: Sequence[Advice],
    title: str,
    pictures: Sequence[str],
) -> str:
    """Write the same as a Markdown page.

    Args:
        statistics: figures by layer.
        advice: advice to include.
        title: title of the page.
        pictures: paths of pictures, relative to the page.
    """
    heading, *rows = _table(statistics)
    lines = [f'# {title}', '', _row(heading), '|' + ' --- |' * len(heading)]
    lines += [*map(_row, rows), '']
    lines += [f'- **{column.heading}**: {column.meaning}' for column in COLUMNS]
    lines += ['', '## Advice', '']
    if not advice:
        lines += ['None: nothing stands out.', '']
    for one in advice:
        lines += [f'### {one.name[0].upper()}{one.name[1:]}', '']
        lines += [f'- `{name}`: {finding}' for name, finding in one.findings.items()]
        lines += ['', f'Try: {one.remedy}.', '', f'Why: {one.reason}.', '']
    lines += ['## Pictures', '']
    lines += [f'![{file}]({file})\n' for file in pictures]
    return '\n'.join(lines)


def as_json(statistics: Mapping[str, LayerStatistics], advice: Sequence[Advice]) -> str:
    """Write the same as JSON: 'layers' by name, 'advice' in order."""
    content = {
        'layers': {name: asdict(layer) for name, layer in statistics.items()},
        'advice': [one._asdict() for one in advice],
    }
    return json.dumps(content, indent=1)


def _table(statistics: Mapping[str, LayerStatistics]) -> list[list[str]]:
    heading = [column.heading for column in COLUMNS]
    rows = [
        [column.value(layer) for column in COLUMNS] for layer in statistics.values()
    ]
    return [heading, *rows]


def _row(cells: Sequence[str]) -> str:
    return '| ' + ' | '.join(cells) + ' |'
