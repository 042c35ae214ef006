"""Sums that could leave the accumulators' int32 are refused; those that provably cannot are not."""

import numpy as np
import pytest

from compiler.dialects.attrs import IntType
from compiler.frontend.qdq import Refusal, check_product_sum, check_sum, magnitude

LIMIT = 2**31


@pytest.mark.parametrize(("zero", "expected"), [(-128, 255), (127, 255), (0, 128), (-3, 130)])
def test_magnitude_is_the_larger_side_of_the_zero_point(zero, expected):
    assert magnitude(IntType(8, 0.1, zero)) == expected


def test_the_sum_of_the_weights_decides():
    terms = LIMIT // (255 * 127) + 1
    weights = np.full((2, terms), 127, np.int8)
    with pytest.raises(Refusal, match=rf"a sum of {terms} products may reach {terms * 127 * 255}, .* less than 2\^31"):
        check_sum(weights, None, IntType(8, 0.1, -128))
    check_sum(weights, None, IntType(8, 0.1, 0))
    weights[0, 0], weights[1, 0] = 0, -1
    check_sum(weights, None, IntType(8, 0.1, -128))


def test_products_of_activations_are_bounded_by_their_codes():
    kind = IntType(8, 0.1, -128)
    check_product_sum(kind, kind, 33025)
    with pytest.raises(Refusal, match="a sum of 33026 products may reach 2147515650"):
        check_product_sum(kind, kind, 33026)
