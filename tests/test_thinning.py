"""What `make fast` leaves out of a test, and what it keeps."""

import pytest

from tests.thinning import CASES, _diagonal, _kept, examples, leave_out


@pytest.mark.parametrize("sizes", [[46, 5], [7, 2, 4], [1], [4, 4], [2, 8, 3]])
def test_the_diagonal_holds_every_value(sizes):
    kept = _diagonal(sizes)
    assert len(kept) == max(sizes)
    assert [{place[i] for place in kept} for i in range(len(sizes))] == [set(range(n)) for n in sizes]


def test_a_count_takes_places_of_the_longest_axis_and_all_of_the_short_ones():
    assert _diagonal([8, 2], 4) == {(0, 0), (2, 1), (4, 0), (6, 1)}
    assert _diagonal([3], 9) == {(0,), (1,), (2,)}


def test_of_a_list_of_cases_that_is_no_product_the_kept_ones_are_spaced_evenly():
    cases = [(n, 0) for n in range(7)] + [(0, 1)]
    assert _kept(cases, 4) == {0, 2, 4, 6}
    assert _kept(cases, 9) == set(range(8))
    assert _kept([(0, 0), (0, 0), (0, 0)], 2) == {0, 1}


def left(request):
    return request.node.get_closest_marker("slow") is not None


@pytest.mark.thin(2)
@pytest.mark.parametrize("a", "wxyz")
@pytest.mark.parametrize("b", [False, True])
def test_cases_off_the_diagonal_are_slow(request, a, b):
    assert left(request) == ((a, b) not in {("w", False), ("y", True)})


@pytest.mark.parametrize("n", range(2 * CASES))
def test_a_few_cases_stay_of_any_test(request, n):
    assert left(request) == (n % 2 == 1)


@pytest.mark.parametrize("n", [pytest.param(0, marks=pytest.mark.slow), *range(1, 1 + CASES)])
def test_what_is_slow_anyway_takes_no_place(request, n):
    assert left(request) == (n == 0)


def test_a_property_has_at_least_one_example_and_no_more_than_it_says():
    assert examples(1) == 1
    assert examples(100) in (5, 100)
    leave_out([])
