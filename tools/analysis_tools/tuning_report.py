"""Reports on the learned positions of a model, with advice on extent and count."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # dcls_mm, uninstalled
from dcls_mm.engine import analysis, launch  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of the model')
    parser.add_argument('checkpoint', help='file, or URL that mmengine knows')
    parser.add_argument(
        '--out', help='folder for report.md, report.json and pictures of the positions'
    )
    parser.add_argument(
        '--json', action='store_true', help='print JSON instead of a table'
    )
    launch.add_override_argument(parser)
    return parser.parse_args()


def main(**options):
    print(analysis.report_tuning(**options))


if __name__ == '__main__':
    launch.run(main, vars(parse_args()))
