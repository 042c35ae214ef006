"""Packing of 4-bit codes and codebooks against loops over single codes; numpy = torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isa import numerics

CODES = st.lists(st.integers(-8, 7), min_size=1, max_size=19)
THRESHOLDS = st.lists(st.floats(-100, 100, width=32), min_size=15, max_size=15, unique=True).map(sorted)


@given(CODES)
def test_two_codes_share_a_byte_the_first_in_the_low_half(codes):
    padded = [*codes, 0] if len(codes) % 2 else codes
    want = bytes((low & 15) | (high & 15) << 4 for low, high in zip(padded[::2], padded[1::2], strict=True))
    for image in (np.array([codes], np.int8), torch.tensor([codes], dtype=torch.int8)):
        packed = np.asarray(numerics.pack4(image))
        assert packed.dtype == np.int8
        assert packed.tobytes() == want


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=9), st.booleans())
def test_bytes_unpack_to_signed_halves(data, odd):
    n = 2 * len(data) - odd
    halves = [(byte >> shift) & 15 for byte in data for shift in (0, 4)][:n]
    want = [half - 16 if half > 7 else half for half in halves]
    for packed in (np.array([data], np.int8), torch.tensor([data], dtype=torch.int8)):
        assert numerics.unpack4(packed, n).tolist() == [want]


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 1), (4, 6)])
def test_rows_of_any_rank_survive_packing(shape):
    codes = np.random.default_rng(0).integers(-8, 8, shape, np.int8)
    packed = numerics.pack4(codes)
    assert packed.shape == (*shape[:-1], (shape[-1] + 1) // 2)
    assert np.array_equal(numerics.unpack4(packed, shape[-1]), codes)


@given(THRESHOLDS, st.lists(st.floats(width=32), max_size=8))
def test_encoding_counts_the_thresholds_at_or_below(thresholds, extra):
    """Also at every threshold and its neighbours; NaN is above none."""
    at = np.array(thresholds, np.float32)
    near = [np.nextafter(at, np.float32(s)) for s in (-np.inf, np.inf)]
    y = np.concatenate([at, *near, np.array([*extra, np.inf, -np.inf, np.nan], np.float32)])
    want = [-8 + sum(t <= float(v) for t in thresholds) for v in y]
    assert numerics.encode(y, thresholds).tolist() == want
    assert numerics.encode(torch.from_numpy(y), thresholds).tolist() == want


@given(st.lists(st.integers(-128, 127), min_size=16, max_size=16), CODES)
def test_decoding_looks_up_the_entry(table, codes):
    want = [table[q + 8] for q in codes]
    for image in (np.array(codes, np.int8), torch.tensor(codes, dtype=torch.int8)):
        found = numerics.decode(image, table)
        assert found.tolist() == want
        assert str(found.dtype).endswith("int8")


@pytest.mark.parametrize(("width", "want"), [(4, (-8, 7)), (8, (-128, 127)), (16, (-32768, 32767))])
def test_ranges_of_codes(width, want):
    assert numerics.code_range(width) == want
    assert np.iinfo(numerics.code_type(width)).max >= want[1]
