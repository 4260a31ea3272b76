"""Prints the JSON of `run.py` as benchmarks/RESULTS-GPU.md has it."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import paths  # noqa: F401
from common import Tables, Timing, print_list

INTRODUCTION = """\
# A recorded run on a GPU

`python benchmarks/gpu/tables.py` printed this from what `make gpu` measured at commit
{commit}. [README.md](README.md) says how it is measured and what the columns mean.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('json', type=Path, help='what `run.py --out` has written')
    parser.add_argument(
        '--rehearsed', action='store_true', help='print even a rehearsal'
    )
    args = parser.parse_args()
    try:
        content = json.loads(args.json.read_text())
    except (OSError, ValueError) as error:
        parser.error(f'{args.json} is not what `run.py --out` has written: {error}')
    if content['rehearsal'] and not args.rehearsed:
        print(
            f'{args.json} is a rehearsal on a CPU, whose figures mean nothing: record '
            'a run on a GPU.',
            file=sys.stderr,
        )
        return 1
    print(INTRODUCTION.format(commit=content['commit']))
    print_list(content['head'])
    for stage in content['stages']:
        _print_stage(stage)
    return 0


def _print_stage(stage: dict[str, Any]) -> None:
    print(f'\n## {stage["name"]}\n')
    print_list({**stage['facts'], 'seconds': stage['seconds']})
    if stage['left_out']:
        print(f'- left out, as the time was up: {"; ".join(stage["left_out"])}')
    tables = Tables()
    for table in stage['tables']:
        tables.table(table['title'])
        for row in table['rows']:
            tables.row({name: _value(value) for name, value in row.items()})
        if 'note' in table:
            tables.note(table['note'])
    if stage['failures']:
        print('\n**Failed:**\n')
    for failure in stage['failures']:
        last = failure['why'].strip().splitlines()[-1:]
        print(f'- {failure["what"]}:', *last)


def _value(value: Any) -> Any:
    """Return a cell as it was before it was written as JSON."""
    return Timing(**value) if isinstance(value, dict) else value


if __name__ == '__main__':
    sys.exit(main())
