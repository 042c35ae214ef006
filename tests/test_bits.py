"""What a comparison of bits says when they differ."""

import numpy as np
import pytest
import torch

from tests.bits import assert_same

ONE = torch.tensor([[0.0, 1.0], [torch.nan, 2.0]])


def test_the_same_bits_are_the_same() -> None:
    assert_same([ONE], [ONE.clone()])
    assert_same([ONE, torch.arange(3)], [ONE.numpy(), np.arange(3)])


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "here: number of results: 1, not 0"),
        ([ONE.double()], "here: result 0 is (2, 2) of torch.float32, not (2, 2) of torch.float64"),
        ([ONE[0]], "here: result 0 is (2, 2) of torch.float32, not (2,) of torch.float32"),
        (
            [torch.tensor([[-0.0, 1.0], [torch.nan, 3.0]])],
            "here: result 0 differs in 2 of 4 elements, first at (0, 0): 0.0 (0x0) is not -0.0 (0x80000000)",
        ),
        (
            [torch.tensor([[0.0, 1.0], [-torch.nan, 2.0]])],
            "here: result 0 differs in 1 of 4 elements, first at (1, 0): nan (0x7fc00000) is not nan (0xffc00000)",
        ),
    ],
)
def test_a_difference_is_named(others: list[torch.Tensor], message: str) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_same([ONE], others, "here")
    assert str(caught.value).splitlines()[0] == message


def test_the_second_result_and_integers() -> None:
    with pytest.raises(AssertionError, match=r"^result 1 differs in 1 of 1 .* at \(\): 5 \(0x5\) is not 7 "):
        assert_same([ONE, torch.tensor(5)], [ONE, torch.tensor(7)])
