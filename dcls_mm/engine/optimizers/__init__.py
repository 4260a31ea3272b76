"""Learning rates and weight decays by depth and kind of parameter."""

from .dcls_optimizer_constructor import DCLSOptimizerConstructor

__all__ = ['DCLSOptimizerConstructor']
