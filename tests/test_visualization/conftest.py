"""What the tests of pictures share."""

import numpy as np
import pytest

from dcls_mm.analysis import collect_elements
from dcls_mm.layers import DCLSConv2d


@pytest.fixture
def find_colour():
    """A function: centre (row, column) of the pixels of an exact colour."""

    def find(image, colour):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        rows, columns = np.nonzero((image == wanted).all(-1))
        return rows.mean(), columns.mean()

    return find


@pytest.fixture
def elements_at():
    """A function: the elements of a layer of an extent of 17 at (row, column)s."""

    def make(*places):
        layer = DCLSConv2d(
            1, 1, kernel_count=len(places), dilated_kernel_size=17, padding=8
        )
        layer.P.data = layer.P.new_tensor(places).T.reshape(layer.P.shape)
        return {'layer': collect_elements(layer)['']}

    return make
