"""An entry point for tools that still call setup.py; see pyproject.toml."""

from setuptools import setup

setup()
