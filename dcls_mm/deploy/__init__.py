"""Trained models for use without this package: what ``tools/deploy`` does."""

from .export import FORMATS, export_model
from .models import PARTS
from .stock import reparameterize_checkpoint

__all__ = ['FORMATS', 'PARTS', 'export_model', 'reparameterize_checkpoint']
