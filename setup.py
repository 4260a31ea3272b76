"""For tools that still call it: what the package is and needs is in pyproject.toml."""

from setuptools import setup

setup()
