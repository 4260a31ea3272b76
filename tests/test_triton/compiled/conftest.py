"""Leaves these files out unless they were asked for by TRITON_INTERPRET=0."""

import os

collect_ignore_glob = [] if os.environ.get('TRITON_INTERPRET') == '0' else ['test_*.py']
