"""Reports on the learned positions of a model, with advice on extent and count."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # dcls_mm, uninstalled
from dcls_mm.apis import command, tuning_report  # noqa: E402


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
    command.add_override_argument(parser)
    return parser.parse_args()


def main(**options):
    print(tuning_report.report_tuning(**options))


if __name__ == '__main__':
    command.run(main, vars(parse_args()))
