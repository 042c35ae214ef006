"""Kernels of a shared loop whose results only kernels behind it read."""

from __future__ import annotations

import pytest
from xdsl.ir import SSAValue

from compiler.analysis.stripes import Group
from tests.compiler.kern_graphs import add, conv, dq, q
from tests.compiler.stripe_replay import replay
from tests.compiler.test_stripes import CODES4, conv3, tail


def two_widths(x: SSAValue) -> list[SSAValue]:
    """A sum in binary32 that a skip connection takes in 8 bits and a convolution in 4, as ResNets have in W4A4."""
    value = conv(q(x), 4, 3)
    return [q(add(dq(conv3(q(value, CODES4))), dq(q(value))))]


def test_what_only_kernels_behind_a_loop_read_is_made_in_step_with_it():
    found, _ = tail(two_widths, 1, 4, 8, 4)
    group = Group(1, 3)
    made = [found.placed[found.steps[i].op.output].storage for i in group.steps]
    assert [(storage.first, storage.last) for storage in made] == [(1, 3), (2, 4), (3, 5)]
    shared = replay(found, group, (2, 4, 7, 8))
    assert shared.ends == dict.fromkeys(group.steps, (2, 4, 7, 8))
    assert shared.delays == {1: 0, 2: 1, 3: 1}
    assert list(shared.held) == [made[0].index]


@pytest.mark.parametrize(("factor", "ends"), [(2, (1, 2, 4, 4)), (1, (2, 4, 7, 8))])
def test_fewer_rows_are_made_in_the_same_share(factor, ends):
    def body(x: SSAValue) -> list[SSAValue]:
        a = conv3(q(x))
        return [conv3(a, strides=(factor, 1)), conv3(a)]

    found, group = tail(body, 1, 4, 8, 4)
    assert replay(found, group, (2, 4, 7, 8)).ends[2] == ends
