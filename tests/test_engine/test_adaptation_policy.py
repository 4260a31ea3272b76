"""Which elements leave and start, and how layers share a budget, by worked cases."""

import pytest
import torch

from dcls_mm.engine.hooks.adaptation_policy import (
    STAYS,
    Share,
    givers_to_be,
    hand_over,
    holding_extent,
    leaving_elements,
    next_extent,
    places_of_fresh,
    plan_counts,
    pressing_shares,
    rearranged,
    wanted_places,
)


def leave(places, magnitude, spared=(), **changes):
    """Return which elements of one 1-d kernel leave, and to which."""
    options = {'meet': 0.5, 'near_zero': 0.1, 'most': 9, **changes}
    young = torch.zeros(1, len(places), dtype=torch.bool)
    young[0, list(spared)] = True
    leaving = leaving_elements(
        torch.tensor([[places]]), torch.tensor([magnitude]), young, **options
    )
    return {i: j for i, j in enumerate(leaving[0].tolist()) if j != STAYS}


@pytest.mark.parametrize(
    'places, magnitude, expected',
    [
        ([0.0, 2.0, 5.0], [1.0, 1.0, 1.0], {}),
        ([0.0, 0.4, 5.0], [1.0, 2.0, 1.0], {0: 1}),
        ([0.0, 0.5, 5.0], [2.0, 1.0, 1.0], {1: 0}),
        ([0.0, 0.6, 5.0], [2.0, 1.0, 1.0], {}),
        ([3.0, 3.0, 5.0], [1.0, 1.0, 1.0], {1: 0}),  # of equals, the later one
        ([0.0, 2.0, 5.0], [1.0, 0.05, 1.0], {1: 1}),  # fades
        ([0.0, 0.2, 5.0], [0.05, 0.04, 1.0], {1: 0}),  # who gets weight stays
        # One by one into a partner, lightest first, and never into one that leaves.
        ([0.0, 0.2, 0.4], [3.0, 1.0, 2.0], {1: 0}),
        ([0.0, 0.4, 0.8], [3.0, 2.0, 1.0], {1: 0}),
        # Into the heaviest that it has met.
        ([0.0, 0.4, 0.8], [2.0, 1.0, 3.0], {1: 2}),
    ],
)
def test_who_leaves(places, magnitude, expected):
    assert leave(places, magnitude) == expected


def test_the_lightest_leave_first_and_young_ones_stay():
    places, magnitude = [0.0, 2.0, 4.0, 6.0], [2.0, 0.03, 0.01, 0.02]
    assert leave(places, magnitude, most=2) == {2: 2, 3: 3}
    assert leave(places, magnitude, spared=[2], most=2) == {1: 1, 3: 3}
    assert leave(places, magnitude, most=0) == {}


def test_one_can_be_made_to_leave():
    places, magnitude = [0.0, 2.0, 4.0], [1.0, 0.8, 0.9]
    assert leave(places, magnitude, least=1) == {1: 1}
    assert leave(places, magnitude, spared=[1], least=1) == {2: 2}
    assert leave([0.0, 0.1, 4.0], [1.0, 0.9, 0.8], least=1) == {1: 0}
    assert leave(places, magnitude, spared=[0, 1, 2], least=1) == {1: 1}


def test_distance_counts_all_axes():
    young = torch.zeros(2, dtype=torch.bool)
    for step, met in ((0.3, True), (0.4, False)):
        leaving = leaving_elements(
            torch.tensor([[0.0, step], [0.0, step]]),
            torch.tensor([1.0, 0.5]),
            young,
            meet=0.5,
            near_zero=0.0,
            most=1,
        )
        assert leaving.tolist() == ([STAYS, 0] if met else [STAYS, STAYS])


def test_weight_is_handed_over_in_steps_and_ends_at_zero():
    weight = torch.tensor([[3.0, 0.3, -1.0, 0.7]])
    leaving = torch.tensor([[STAYS, 0, STAYS, 3]])
    total = weight.clone()
    for left in (3, 2):
        hand_over(weight, leaving, 1 / left)
    torch.testing.assert_close(weight, torch.tensor([[3.2, 0.1, -1.0, 0.7 / 3]]))
    hand_over(weight, leaving, 1.0)
    assert weight[0, 1] == weight[0, 3] == 0
    torch.testing.assert_close(weight[0, 0], total[0, 0] + total[0, 1])
    # Outputs that share positions each move their own.
    weights = torch.stack([total, -total])
    hand_over(weights, leaving, 1.0)
    torch.testing.assert_close(weights[1], -weight)


def test_new_ones_start_where_the_gradient_is_largest():
    gradient = torch.zeros(2, 5, 7)
    gradient[0, 0, 6], gradient[0, 4, 1], gradient[0, 2, 3] = 3.0, 2.0, 9.0
    gradient[1, 1, 2], gradient[1, 1, 3], gradient[1, 3, 3] = 5.0, 4.0, 1.0
    # Kernel 0 has an element in the middle; kernel 1 one between two taps and one that
    # is about to leave.
    positions = torch.tensor([[[0.0, 0.0], [-1.0, 1.0]], [[0.0, 0.0], [-0.5, 0.0]]])
    stays = torch.tensor([[True, True], [True, False]])
    wanted = wanted_places(gradient, positions, stays, 2)
    assert wanted.gain.tolist() == [[3.0, 2.0], [1.0, 0.0]]
    assert wanted.places[:, 0].T.tolist() == [[-2, 3], [2, -2]]
    assert wanted.places[:, 1, 0].tolist() == [1, 0]
    fresh = torch.tensor([[False, True, True], [False, True, False]])
    places = places_of_fresh(fresh, wanted)
    assert places[:, 0, 1:].T.tolist() == [[-2, 3], [2, -2]]
    assert places[:, 1, 1].tolist() == [1, 0]
    assert wanted_places(gradient[:, :1, :1], positions, stays, 5).gain.shape == (2, 1)


def test_elements_are_replaced_dropped_and_appended():
    dead = torch.tensor([[False, True, False], [True, False, True]])
    same = rearranged(dead, 3)
    assert same.source.tolist() == [[0, 1, 2]] * 2
    assert torch.equal(same.fresh, dead)
    fewer = rearranged(dead, 2)
    assert fewer.source.tolist() == [[0, 2], [1, 0]]
    assert fewer.fresh.tolist() == [[False, False], [False, True]]
    more = rearranged(dead, 4)
    assert more.source[:, :3].tolist() == [[0, 1, 2]] * 2
    assert more.fresh.tolist() == [
        [False, True, False, True],
        [True, False, True, True],
    ]


def share(count, demand, spare=0, cost=10, most=1):
    return Share(count, cost, spare, demand, most)


@pytest.mark.parametrize(
    'shares, budget, expected',
    [
        ([share(3, 1.0), share(3, 9.0)], 60, [3, 3]),  # nobody has any to spare
        ([share(3, 1.0, 1), share(3, 9.0)], 60, [2, 4]),
        ([share(3, 1.0, 1), share(3, 1.9)], 60, [3, 3]),  # asks for hardly more
        ([share(3, 1.0, 2), share(3, 9.0)], 60, [2, 4]),  # no more than is needed
        ([share(3, 1.0, 3, cost=5), share(3, 9.0)], 45, [1, 4]),
        ([share(2, 1.0, 2, cost=5), share(3, 9.0)], 40, [2, 3]),  # not enough: kept
        ([share(3, 1.0, 1, cost=25), share(3, 9.0, most=9)], 105, [2, 5]),
        ([share(3, 1.0), share(3, 9.0)], 80, [3, 4]),  # room is left for later
        ([share(3, 1.0), share(3, 9.0, most=5)], 99, [3, 6]),
        ([share(3, 0.0), share(3, 0.0)], 99, [3, 3]),  # nobody asks
        ([share(3, 1.0, 1), share(3, 9.0, 1)], 50, [2, 3]),  # too many at the start
        ([share(3, 1.0, 2), share(3, 1.0, 2)], 20, [1, 1]),
        ([share(5, 2.0)], 50, [5]),
        ([share(5, 2.0)], 60, [6]),
    ],
)
def test_who_gets_elements(shares, budget, expected):
    assert plan_counts(shares, budget) == expected


def test_who_should_have_one_to_spare():
    few, some, much = share(3, 1.0), share(3, 1.5), share(3, 3.0)
    assert givers_to_be([few, some, much], 90) == [True, False, False]
    assert givers_to_be([some, much], 60) == [False, False]
    assert givers_to_be([share(1, 1.0), some, much], 70) == [False, False, False]
    assert givers_to_be([share(1, 1.0), some, share(3, 4.0)], 70) == [
        False,
        True,
        False,
    ]
    assert givers_to_be([share(1, 1.0), much], 30) == [False, True]
    assert givers_to_be([share(1, 1.0)], 10) == [False]


@pytest.mark.parametrize(
    'extent, bounds, pressing, expected',
    [
        (7, (-3, 3), 0.0, 7),
        (7, (-3, 3), 0.5, 9),
        (9, (-3, 3), 0.0, 9),  # a pixel beside the outermost tap stays
        (9, (-2, 2), 0.0, 7),
        (31, (-2, 3), 0.0, 9),
        (11, (-5, 5), 0.9, 11),  # the largest
        (9, (0, 0), 0.0, 3),
        (8, (-1, 1), 0.0, 6),  # taps from -4 to 3
        (8, (-2, 0), 0.0, 6),
        (8, (-1, 0), 0.0, 4),
        (9, (float('nan'), 1.0), 0.0, 9),
    ],
)
def test_the_next_extent(extent, bounds, pressing, expected):
    options = dict(pressed=0.1, smallest=1, largest=11 if extent < 31 else None)
    assert next_extent(extent, bounds, pressing, **options) == expected


def test_padding_limits_a_crop():
    options = dict(pressed=0.1, largest=None)
    assert next_extent(9, (0, 0), 0.0, smallest=7, **options) == 7


@pytest.mark.parametrize(
    'extent, first, last, largest, expected',
    [
        (5, -2, 2, None, 5),
        (5, -2, 3, None, 7),
        (6, -3, 2, None, 6),
        (6, -3, 3, None, 8),
        (5, -40, 0, None, 81),
        (5, -40, 0, 31, 31),
        (5, float('nan'), 0, None, 5),
        (5, 0, float('inf'), None, 5),
    ],
)
def test_an_extent_that_holds_all_taps(extent, first, last, largest, expected):
    assert holding_extent(extent, first, last, largest) == expected


def test_who_presses():
    positions = torch.tensor([[[-3.0, 0.0, 2.0]], [[0.0, 1.9, -4.0]]])
    magnitude = torch.tensor([[1.0, 2.0, 5.0]])
    assert pressing_shares(positions, magnitude, (7, 9)) == [0.75, 0.625]
    assert pressing_shares(positions, magnitude, (8, 8)) == [0.75, 0.625]
    assert pressing_shares(positions, torch.zeros(1, 3), (7, 9)) == [0.0, 0.0]
