"""Packaging of dcls_mm.

Only torch and numpy are installed with it. The OpenMMLab packages stand in extras:
an environment may hold one of their forks under the same import names, and a plain
requirement would install the stock package over it. `import dcls_mm` checks what it
finds instead (dcls_mm/_compat.py).

dcls_mm/.mim holds links to configs, tools and model-index.yml, which a wheel gets as
files: that is where mim looks for them.
"""

from pathlib import Path
from runpy import run_path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

MM = ['mmengine>=0.10.3,<1.0', 'mmcv>=2.1.0,<2.2.0']
DET = MM + ['mmdet>=3.3.0,<4.0']
SEG = MM + ['mmsegmentation>=1.2.2,<2.0', 'ftfy', 'regex']

setup(
    name='dcls_mm',
    version=run_path(str(ROOT / 'dcls_mm' / 'version.py'))['__version__'],
    description='Dilated convolution with learnable spacings for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The dcls_mm authors',
    license='MIT',
    packages=find_packages(include=['dcls_mm', 'dcls_mm.*']),
    package_data={
        'dcls_mm': [f'.mim/**/*.{kind}' for kind in ('md', 'py', 'sh', 'yml')]
    },
    # These serve a checkout only.
    exclude_package_data={
        'dcls_mm': [
            '.mim/tools/environment/*',
            '.mim/tools/setup_environment.py',
            '.mim/tools/demo.py',
            '.mim/tools/analysis_tools/update_zoo.py',
        ]
    },
    python_requires='>=3.10',
    install_requires=['torch>=2.6', 'numpy'],
    extras_require={
        'mm': MM,
        'det': DET,
        'seg': SEG,
        'all': sorted({*DET, *SEG}),
        'deploy': ['onnx', 'onnxscript', 'onnxruntime'],
        'robustness': ['imagecorruptions-imaug'],
        'tests': ['pytest', 'pytest-xdist', 'hypothesis', 'dcls'],
    },
    zip_safe=False,
)
