"""Checks that configs, classes and data fit together, before a training."""
