"""Field types that several instructions share."""

from __future__ import annotations

from typing import Annotated

from isa.encoding import Bits

U1 = Annotated[int, Bits(1)]
U4 = Annotated[int, Bits(4)]
U6 = Annotated[int, Bits(6)]
U8 = Annotated[int, Bits(8)]
U14 = Annotated[int, Bits(14)]
U16 = Annotated[int, Bits(16)]
U24 = Annotated[int, Bits(24)]
U32 = Annotated[int, Bits(32)]
S8 = Annotated[int, Bits(8, signed=True)]
S16 = Annotated[int, Bits(16, signed=True)]
S32 = Annotated[int, Bits(32, signed=True)]
F32 = Annotated[float, Bits(32, is_float=True)]
