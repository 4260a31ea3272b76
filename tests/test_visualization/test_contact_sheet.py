"""A contact sheet keeps the order, proportions and colours of its pictures."""

import numpy as np
import pytest

from dcls_mm.visualization import draw_contact_sheet


def test_rows_fill_the_width():
    def plain(value, height, width):
        return np.full((height, width, 3), value, np.uint8)

    sheet = draw_contact_sheet(
        [[plain(10, 50, 100), plain(20, 200, 200)], [plain(30, 30, 90)]], width=300
    )
    assert sheet.shape == (100 + 100, 300, 3)
    assert (sheet[:100, :200] == 10).all()
    assert (sheet[:100, 200:] == 20).all()
    assert (sheet[100:] == 30).all()


@pytest.mark.parametrize('rows', [[], [[np.zeros((2, 2, 3), np.uint8)], []]])
def test_an_empty_row_is_an_error(rows):
    with pytest.raises(ValueError, match='at least one picture'):
        draw_contact_sheet(rows)
