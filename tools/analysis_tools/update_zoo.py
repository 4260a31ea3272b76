"""Count parameters and FLOPs of configs, and write them where the configs are listed.

In the README.md of a config's folder that is the row that links the config, under the
headings of COLUMNS; in metafile.yml it is the config's entry. Accuracies are untouched.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # dcls_mm, uninstalled
from dcls_mm.apis.flops import count_config  # noqa: E402

# Configs whose image size differs from the usual one: part of the name -> (height,
# width).
SHAPES = {
    'shapes': (160, 160),
    'rotated-rtmdet': (1024, 1024),
    'rtmdet': (640, 640),
    'ade20k-640x640': (640, 2560),
    'nuclei': (512, 640),
    'camvid': (360, 480),
}

COLUMNS = 'params (M)', 'FLOPs (G)'
LINK = re.compile(r'\]\(\./([^)]+)\.py\)')
ENTRY = re.compile(
    r'(- Name: (\S+)\n(?:(?!  - Name).*\n)*?      Parameters \(M\): )[\d.]+'
    r'(\n      FLOPs \(G\): )[\d.]+'
)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'folders',
        nargs='*',
        default=sorted(ROOT.glob('configs/*/')),
        type=Path,
        metavar='FOLDER',
        help='folders of configs (default: all)',
    )
    return parser.parse_args()


def update_readme(text, figures):
    """Return the text with the figures of the configs that its tables link.

    Args:
        text: the text of a README.md.
        figures: a function of a config's name that returns (parameters, FLOPs) as text.
    """
    lines, columns = [], []
    for line in text.splitlines(keepends=True):
        cells, link = line.split(' | '), LINK.search(line)
        if set(COLUMNS) <= set(cells):
            columns = [cells.index(name) for name in COLUMNS]
        elif not line.startswith('|'):
            columns = []
        elif columns and link:
            for column, figure in zip(columns, figures(link[1])):
                cells[column] = figure
        lines.append(' | '.join(cells))
    return ''.join(lines)


def update_metafile(text, figures):
    """Do the same as ``update_readme`` for the text of a metafile.yml."""

    def replace(entry):
        parameters, flops = figures(entry[2])
        return f'{entry[1]}{parameters}{entry[3]}{flops}'

    return ENTRY.sub(replace, text)


class Counter:
    """The figures of a folder's configs, each counted once."""

    def __init__(self, folder):
        self.folder = folder
        self.known = {}

    def __call__(self, name):
        if name not in self.known:
            shape = next((s for part, s in SHAPES.items() if part in name), None)
            found = count_config(str(self.folder / f'{name}.py'), shape)
            values = found.parameters / 1e6, found.flops / 1e9
            self.known[name] = tuple(f'{value:.1f}' for value in values)
            print(f'{name}: {" M, ".join(self.known[name])} G', flush=True)
        return self.known[name]


def main():
    for folder in parse_args().folders:
        figures = Counter(folder)
        for name, update in (
            ('README.md', update_readme),
            ('metafile.yml', update_metafile),
        ):
            path = folder / name
            if path.exists():
                text = path.read_text(encoding='utf-8')
                updated = update(text, figures)
                path.write_text(updated, encoding='utf-8')
                said = 'unchanged' if updated == text else 'written'
                print(f'{path}: {said}', flush=True)


if __name__ == '__main__':
    main()
