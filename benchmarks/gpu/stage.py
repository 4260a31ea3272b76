"""Runs one stage in this process; ``run.py`` starts it."""

import argparse
from importlib import import_module
from pathlib import Path

from device import open_device
from results import Results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('module', help='the module that measures')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--limit', type=float, required=True)
    parser.add_argument('--seconds', type=float, required=True)
    parser.add_argument('--backbone', required=True)
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--rehearse', action='store_true')
    args = parser.parse_args()
    results = Results(args.out, args.limit)
    device = open_device(args.rehearse)
    results.fact('state of the card before', device.state())
    with results.going_on(args.module):
        import_module(args.module).measure(device, results, args)
    results.fact('state of the card after', device.state())


if __name__ == '__main__':
    main()
