"""Fixtures for the tests of pictures."""

import numpy as np
import pytest

from dcls_mm.analysis import collect_elements
from dcls_mm.layers import DCLSConv2d


@pytest.fixture
def find_colour():
    """Return a function that finds the centre (row, column) of an exact colour."""

    def find(image, colour):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        rows, columns = np.nonzero((image == wanted).all(-1))
        return rows.mean(), columns.mean()

    return find


@pytest.fixture
def elements_at():
    """Return a function that puts elements at (row, column)s, in an extent of 17."""

    def make(*places):
        layer = DCLSConv2d(
            1, 1, kernel_count=len(places), dilated_kernel_size=17, padding=8
        )
        layer.P.data = layer.P.new_tensor(places).T.reshape(layer.P.shape)
        return {'layer': collect_elements(layer)['']}

    return make
