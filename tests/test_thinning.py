"""What `make fast` leaves out holds every value of every parameter."""

import pytest

from tests.thinning import _diagonal, examples, leave_out


@pytest.mark.parametrize("sizes", [[46, 5], [7, 2, 4], [1], [4, 4], [2, 8, 3]])
def test_the_diagonal_holds_every_value(sizes):
    kept = _diagonal(sizes)
    assert len(kept) == max(sizes)
    assert [{place[i] for place in kept} for i in range(len(sizes))] == [set(range(n)) for n in sizes]


def test_a_count_takes_places_of_the_longest_axis_and_all_of_the_short_ones():
    assert _diagonal([8, 2], 4) == {(0, 0), (2, 1), (4, 0), (6, 1)}
    assert _diagonal([3], 9) == {(0,), (1,), (2,)}


@pytest.mark.thin(2)
@pytest.mark.parametrize("a", "wxyz")
@pytest.mark.parametrize("b", [False, True])
def test_cases_off_the_diagonal_are_slow(request, a, b):
    kept = (a, b) in {("w", False), ("y", True)}
    assert (request.node.get_closest_marker("slow") is None) == kept


def test_a_property_has_at_least_one_example_and_no_more_than_it_says():
    assert examples(1) == 1
    assert examples(50) in (10, 50)
    leave_out([])
