"""Convolutions, linear and matmul: exact integer sums, then one scale and one bias; binary32 sums are sequential."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch.nn import functional

from isa import numerics
from isa.errors import UnsupportedError
from quantizer.reference.values import Lazy, Weight, as_float, as_lazy, as_weight, is_float

FLOAT32_EXACT = 2.0**24
"""Integers up to here are binary32, so sums that stay below are exact in any order."""

ACTIVATION_SPAN = 255
"""Largest |q - zero| of int8 codes."""


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """(h, w) of an aten argument that may hold one number for both."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values[0], values[-1])


def conv2d(
    x: object,
    weight: object,
    bias: object = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> torch.Tensor:
    """x codes [N, C, H, W] (*) w codes [O, C/groups, kh, kw] -> binary32 [N, O, H', W'], channels last in memory.

    Of two binary32 tensors the sum is sequential: (c, kh, kw) order, every step rounded.
    """
    if is_float(x) and is_float(weight):
        _two_dimensions(as_float(x))
        return _conv_f32(x, weight, bias, pair(stride), padding, pair(dilation), groups)
    x, w = as_lazy(x, "conv2d"), as_weight(weight, "conv2d")
    kernel, step, spread = w.codes.shape[2:], pair(stride), pair(dilation)
    pads = _paddings(padding, kernel, spread)
    batched = x if x.codes.dim() == 4 else x.moved(x.codes[None])
    if groups == 1 and w.plain and x.codes.dtype is torch.int8:
        acc = _integer_conv(batched, w, step, pads, spread)
    else:
        acc = _float_conv(batched, w, step, pads, spread, groups)
    y = numerics.accumulate_to_float(acc, w.product_scale(x.scale), None if bias is None else as_float(bias))
    y = y.permute(0, 3, 1, 2)
    return y if x.codes.dim() == 4 else y[0]


def _two_dimensions(x: torch.Tensor) -> None:
    if x.dim() != 4:
        raise UnsupportedError(f"a convolution of {list(x.shape)}: the machine has two dimensions, [N, C, H, W]")


def convolution(
    x: object,
    weight: object,
    bias: object,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """aten.convolution: conv2d, unless transposed."""
    if transposed:
        return conv_transpose2d(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv2d(x, weight, bias, stride, padding, dilation, groups)


def conv1d(
    x: object,
    weight: object,
    bias: object = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> torch.Tensor:
    """conv2d of one row: x [N, C, L], w [O, C/groups, k]."""
    taller = x.moved(x.codes[..., None, :]) if isinstance(x, Lazy) else as_float(x)[..., None, :]
    w = weight if isinstance(weight, torch.Tensor) else as_weight(weight, "conv1d")
    w = w[..., None, :] if isinstance(w, torch.Tensor) else Weight(w.codes[..., None, :], w.scales, w.zeros)
    step, spread = pair(stride)[-1], pair(dilation)[-1]
    sides = padding if isinstance(padding, str) else (0, pair(padding)[-1])
    return conv2d(taller, w, bias, (1, step), sides, (1, spread), groups)[..., 0, :]


def conv_transpose2d(
    x: object,
    weight: object,
    bias: object = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> torch.Tensor:
    """Transposed convolution, w [C, O/groups, kh, kw] with a scale per O: exact integer sums, in binary64.

    Of binary32 tensors the sums are those of a convolution for each phase, see ``_transposed_f32``.
    """
    if is_float(x) and is_float(weight):
        w = _spread(as_float(weight), pair(dilation))
        parts = [
            _transposed_f32(x_, w_, pair(stride), pair(padding), pair(output_padding))
            for x_, w_ in zip(as_float(x).chunk(groups, 1), w.chunk(groups), strict=True)
        ]
        y = torch.cat(parts, 1)
        return y if bias is None else y + as_float(bias).view(-1, 1, 1)
    x, weight = as_lazy(x, "conv_transpose2d"), as_weight(weight, "conv_transpose2d", 1)
    centred = weight.codes.double() - weight.zeros.double().view(1, -1, 1, 1)
    acc = functional.conv_transpose2d(
        x.codes.double() - x.zero,
        centred,
        None,
        stride,
        padding,
        output_padding,
        groups,
        dilation,  # type: ignore[arg-type]
    )
    scale = weight.product_scale(x.scale).repeat(groups)
    acc = _unsigned(acc).permute(0, 2, 3, 1)
    y = numerics.accumulate_to_float(acc, scale, None if bias is None else as_float(bias))
    return y.permute(0, 3, 1, 2)


def _spread(w: torch.Tensor, dilation: tuple[int, int]) -> torch.Tensor:
    """w [..., kh, kw] with zeros between its taps."""
    (kh, kw), (dh, dw) = w.shape[-2:], dilation
    wide = w.new_zeros(*w.shape[:-2], dh * (kh - 1) + 1, dw * (kw - 1) + 1)
    wide[..., ::dh, ::dw] = w
    return wide


def _transposed_f32(
    x: torch.Tensor, w: torch.Tensor, stride: tuple[int, int], padding: tuple[int, int], extra: tuple[int, int]
) -> torch.Tensor:
    """Output s*m + r sums, in a convolution's order, the taps r, r + s, ... of w [C, O, kh, kw]; 0 where none is."""
    (n, _, height, width), (o, kh, kw) = x.shape, w.shape[1:]
    (sh, sw), (th, tw) = stride, (-(-kh // stride[0]), -(-kw // stride[1]))
    bottom = (height - 1) * sh - padding[0] + kh + extra[0]
    right = (width - 1) * sw - padding[1] + kw + extra[1]
    below, beside = max(0, -(-bottom // sh) - height - th + 1), max(0, -(-right // sw) - width - tw + 1)
    x, height, width = functional.pad(x, (0, beside, 0, below)), height + below, width + beside
    rows, columns = height + th - 1, width + tw - 1
    y = torch.zeros(n, o, rows * sh, columns * sw)
    for i in range(sh):
        for j in range(sw):
            phase = torch.zeros(o, w.shape[0], th, tw)
            taps = w[:, :, i::sh, j::sw].transpose(0, 1).flip(2, 3)
            phase[:, :, th - taps.shape[2] :, tw - taps.shape[3] :] = taps
            y[:, :, i::sh, j::sw] = _conv_f32(x, phase, None, (1, 1), (th - 1, tw - 1), (1, 1), 1)
    return y[:, :, padding[0] : bottom, padding[1] : right]


def _conv_f32(
    x: object,
    weight: object,
    bias: object,
    step: tuple[int, int],
    padding: object,
    spread: tuple[int, int],
    groups: int,
) -> torch.Tensor:
    image, w = as_float(x), as_float(weight)
    kernel = (w.shape[2], w.shape[3])
    left, right, top, bottom = _paddings(padding, kernel, spread)  # type: ignore[arg-type]
    image = functional.pad(image, (left, right, top, bottom))
    n, c, h, width = image.shape
    size = [(s - d * (k - 1) - 1) // t + 1 for s, k, t, d in zip((h, width), kernel, step, spread, strict=True)]
    columns = functional.unfold(image, kernel, spread, 0, step).transpose(1, 2)  # [N, L, C*kh*kw]
    per_in, per_out = c // groups, w.shape[0] // groups
    depth = per_in * kernel[0] * kernel[1]
    parts = [
        numerics.matmul_f32(
            columns[..., g * depth : (g + 1) * depth].reshape(-1, depth),
            w[g * per_out : (g + 1) * per_out].reshape(per_out, -1),
        )
        for g in range(groups)
    ]
    y = torch.cat(parts, 1)
    y = y if bias is None else y + as_float(bias)
    return y.view(n, *size, -1).permute(0, 3, 1, 2)


def linear(x: object, weight: object, bias: object = None) -> torch.Tensor:
    """x codes [..., K], w codes [O, K] -> binary32 [..., O]; of binary32 tensors sequential sums."""
    if is_float(x) and is_float(weight):
        rows = as_float(x)
        y = numerics.matmul_f32(rows.reshape(-1, rows.shape[-1]), as_float(weight))
        y = y if bias is None else y + as_float(bias)
        return y.view(*rows.shape[:-1], -1)
    x, w = as_lazy(x, "linear"), as_weight(weight, "linear")
    rows = x.codes.reshape(-1, x.codes.shape[-1])
    if w.plain and rows.dtype is torch.int8:
        acc = numerics.matmul_i8(rows, w.rows)
        acc = acc.sub_(x.zero * w.sums) if x.zero else acc
    else:
        acc = _unsigned((rows.double() - x.zero) @ w.centred.t())
    y = numerics.accumulate_to_float(acc, w.product_scale(x.scale), None if bias is None else as_float(bias))
    return y.view(*x.codes.shape[:-1], -1)


def matmul(a: object, b: object) -> torch.Tensor:
    """a codes [..., M, K], b codes [..., K, N] -> binary32 [..., M, N]; of binary32 tensors sequential sums."""
    if is_float(a) and is_float(b):
        return _by_matrix(as_float(a), as_float(b), torch.float32, numerics.matmul_f32)
    if isinstance(b, Weight):
        raise UnsupportedError("matmul with a weight that has a scale per channel: use linear")
    a, b = as_lazy(a, "matmul"), as_lazy(b, "matmul")
    if a.codes.dtype is b.codes.dtype is torch.int8:
        left, right = a.zero, b.zero
        acc = _by_matrix(a.codes, b.codes, torch.int32, lambda m, n: numerics.matmul_zero(m, left, n, right))
    else:
        acc = _unsigned(torch.matmul(a.codes.double() - a.zero, b.codes.double() - b.zero))
    return numerics.accumulate_to_float(acc, numerics.product_scale(a.scale, b.scale))


def _by_matrix(
    a: torch.Tensor,
    b: torch.Tensor,
    dtype: torch.dtype,
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """``product(a [M, K], b^T [N, K])``, of ``dtype``, for every matrix of a batch."""
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows = a.expand(*batch, *a.shape[-2:]).reshape(-1, *a.shape[-2:])
    columns = b.transpose(-1, -2).expand(*batch, b.shape[-1], b.shape[-2]).reshape(-1, b.shape[-1], b.shape[-2])
    found = torch.empty((len(rows), a.shape[-2], b.shape[-1]), dtype=dtype, device=rows.device)
    for matrix, m, n in zip(found, rows, columns, strict=True):
        matrix.copy_(product(m.contiguous(), n.contiguous()))
    return found.view(*batch, a.shape[-2], b.shape[-1])


def _paddings(
    padding: int | str | Sequence[int], kernel: Sequence[int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """(left, right, top, bottom), as torch.nn.functional.pad takes them."""
    if padding == "same":
        (top, bottom), (left, right) = (
            ((d * (k - 1)) // 2, d * (k - 1) - (d * (k - 1)) // 2) for d, k in zip(dilation, kernel, strict=True)
        )
        return left, right, top, bottom
    h, w = (0, 0) if padding == "valid" else pair(padding)  # type: ignore[arg-type]
    return w, w, h, h


def _integer_conv(
    x: Lazy, w: Weight, step: tuple[int, int], pads: tuple[int, int, int, int], spread: tuple[int, int]
) -> torch.Tensor:
    """int32 [N, H', W', O]: patches as rows of an int8 product; padding reads the zero point."""
    image = x.codes.permute(0, 2, 3, 1)
    if any(pads):
        image = _padded(image, pads, x.zero)
    n, h, width, c = image.shape
    kh, kw = w.codes.shape[2:]
    oh = (h - spread[0] * (kh - 1) - 1) // step[0] + 1
    ow = (width - spread[1] * (kw - 1) - 1) // step[1] + 1
    image = image.contiguous()
    sn, sh, sw, sc = image.stride()
    size = (n, oh, ow, kh, kw, c)
    patches = image.as_strided(size, (sn, sh * step[0], sw * step[1], sh * spread[0], sw * spread[1], sc))
    acc = numerics.matmul_i8(patches.reshape(n * oh * ow, kh * kw * c), w.rows)
    if x.zero:
        acc.sub_(x.zero * w.sums)
    return acc.view(n, oh, ow, -1)


def _padded(image: torch.Tensor, pads: tuple[int, int, int, int], value: int) -> torch.Tensor:
    """NHWC ``image`` within a frame of ``value``, contiguous."""
    left, right, top, bottom = pads
    n, h, w, c = image.shape
    out = torch.full((n, h + top + bottom, w + left + right, c), value, dtype=image.dtype)
    out[:, top : top + h, left : left + w] = image
    return out


def _float_conv(
    x: Lazy, w: Weight, step: tuple[int, int], pads: tuple[int, int, int, int], spread: tuple[int, int], groups: int
) -> torch.Tensor:
    """Grouped convolution of the exact integers in the narrowest float that holds every partial sum; NHWC."""
    fits = w.magnitude * x.span < FLOAT32_EXACT and float_conv_is_exact()
    dtype, kernel = (torch.float32, w.centred32) if fits else (torch.float64, w.centred)
    image = x.codes.to(dtype).sub_(x.zero)
    frame = (0, 0) if pads[0] != pads[1] or pads[2] != pads[3] else (pads[2], pads[0])
    if frame == (0, 0) and any(pads):
        image = functional.pad(image, pads)
    acc = functional.conv2d(image, kernel, None, step, frame, spread, groups)
    return _unsigned(acc).permute(0, 2, 3, 1)


def _unsigned(acc: torch.Tensor) -> torch.Tensor:
    """Float ``acc`` of exact integers, in place, with zeros as integers have them: -1 * 0 alone would stay -0."""
    return acc.add_(0.0)


@cache
def float_conv_is_exact() -> bool:
    """Whether float32 convolutions of integers are exact here (a backend set to bfloat16 or Winograd is not)."""
    x = torch.full((1, 64, 9, 9), 255.0)
    x[:, ::3, ::2] = -253.0
    w = torch.full((64, 1, 3, 3), -127.0)
    w[::2, :, 1:] = 125.0
    for groups, kernel in ((64, w), (2, w.expand(64, 32, 3, 3).contiguous())):
        got = functional.conv2d(x, kernel, padding=1, groups=groups)
        if not torch.equal(got.double(), functional.conv2d(x.double(), kernel.double(), padding=1, groups=groups)):
            return False
    return True
