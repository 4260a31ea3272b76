"""Leaves these files out unless Triton interprets its kernels."""

import os

collect_ignore_glob = [] if os.environ.get('TRITON_INTERPRET') == '1' else ['test_*.py']
