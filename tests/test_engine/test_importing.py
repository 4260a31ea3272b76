"""``import dcls_mm`` imports nothing that only commands and pictures need."""

import json
import subprocess
import sys

CODE = """
import json, sys
import torch, mmengine.hooks, mmengine.optim, mmengine.runner, mmcv.cnn, mmcv.transforms
theirs = set(sys.modules)
import dcls_mm
print(json.dumps(sorted(set(sys.modules) - theirs)))
"""
COMMANDS = {'dcls_mm.analysis', 'dcls_mm.apis', 'dcls_mm.visualization'}
SLOW = {'cv2', 'matplotlib', 'mmdet', 'mmseg', 'setuptools', 'torch.utils.benchmark'}


def test_importing_brings_neither_commands_nor_pictures():
    run = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    brought = set(json.loads(run.stdout))
    assert 'dcls_mm._registration' in brought
    assert not brought & (COMMANDS | SLOW)
