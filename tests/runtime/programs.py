"""Hypothesis strategies for small programs that are legal in program order."""

import dataclasses

from hypothesis import strategies as st

from isa.encoding import Instruction
from isa.instructions import (
    DType,
    Halt,
    LoadCopy,
    LoadShape,
    LoadSync,
    LoadTile,
    MmuInput,
    MmuOutput,
    MmuRun,
    MmuSync,
    StoreCopy,
    StoreSync,
    VcuRun,
    VcuShape,
    VcuStream,
    VcuSync,
)

PAIRS = [(a, b) for a in range(4) for b in range(4) if a != b]


SIZE, SMALL = st.integers(0, 4000), st.integers(1, 40)
INSTRUCTION = (
    st.one_of(
        st.builds(LoadCopy, bytes=SIZE, offset=SIZE),
        st.builds(LoadShape, n0=SMALL, n1=SMALL, run=SMALL),
        st.builds(LoadTile, offset=SIZE),
        st.just(LoadSync()),
    ),
    st.one_of(st.builds(StoreCopy, bytes=SIZE, offset=SIZE), st.just(StoreSync())),
    st.one_of(
        st.builds(MmuOutput, height=SMALL, width=SMALL),
        st.builds(MmuInput, channels=SMALL),
        st.builds(MmuRun, n=SMALL, depthwise=st.integers(0, 1)),
        st.just(MmuSync()),
    ),
    st.one_of(
        st.builds(VcuShape, n0=SMALL, n1=SMALL, n2=SMALL),
        st.builds(
            VcuStream,
            id=st.sampled_from([0, 7]),
            dtype=st.sampled_from(DType),
            stride1=st.just(64),
            stride2=st.integers(0, 9),
        ),
        st.just(VcuRun()),
        st.just(VcuSync()),
    ),
)


@st.composite
def programs(draw: st.DrawFn, most: int = 40) -> list[Instruction]:
    """Small programs whose waits all follow their signals; one semaphore per ordered pair of engines."""
    program: list[Instruction] = []
    open_signals = dict.fromkeys(PAIRS, 0)
    for _ in range(draw(st.integers(0, most))):
        e = draw(st.integers(0, 3))
        ready = [pair for pair, count in open_signals.items() if pair[1] == e and count]
        fields = {}
        if ready and draw(st.booleans()):
            pair = draw(st.sampled_from(ready))
            open_signals[pair] -= 1
            fields["wait_a"] = 1 + PAIRS.index(pair)
        if draw(st.booleans()):
            pair = draw(st.sampled_from([pair for pair in PAIRS if pair[0] == e]))
            open_signals[pair] += 1
            fields["signal_a"] = 1 + PAIRS.index(pair)
        program.append(dataclasses.replace(draw(INSTRUCTION[e]), **fields))
    return [*program, Halt()]
