"""The layer's kernels for a GPU, in Triton: they read bytes and write bytes.

The arithmetic is that of `kernels.py`, whose docstrings say what the coefficients are; powers and
logarithms are the processor's own. The branches of eq. 9 never go through memory: where attention
needs all tokens before the first pixel can be fused, they are computed twice.
"""

from __future__ import annotations

import triton
import triton.language as tl

from wsi_norm.glass import USUAL_WHITE
from wsi_norm.lstainnorm.config import MIN_WEIGHT, TOKEN_PX
from wsi_norm.lstainnorm.moments import EPS
from wsi_norm.lstainnorm.shadow import GREEN_PART, LEAST_LUMINANCE, LUMINANCE, RED_PART
from wsi_norm.normalizers import kernels
from wsi_norm.spaces import DARKEST, LEAST_LIGHT

_RGB, _LAB, _HSV, _HED, _OD = (tl.constexpr(kind) for kind in sorted(kernels.KINDS.values()))
_COEFFICIENTS = tl.constexpr(kernels.COEFFICIENTS)
_FIRST = tl.constexpr(6)
_TOKEN_PX = tl.constexpr(TOKEN_PX)
_MIN_WEIGHT, _EPS = tl.constexpr(MIN_WEIGHT), tl.constexpr(EPS)
_W0, _W1, _W2 = (tl.constexpr(weight) for weight in LUMINANCE)
_RED_PART, _GREEN_PART = tl.constexpr(RED_PART), tl.constexpr(GREEN_PART)
_LEAST_LUMINANCE = tl.constexpr(LEAST_LUMINANCE)
_LEAST_LIGHT, _DARKEST = tl.constexpr(LEAST_LIGHT), tl.constexpr(DARKEST)
_WHITE = tl.constexpr(USUAL_WHITE)
_CLEAR, _RAMP = tl.constexpr(kernels._CLEAR), tl.constexpr(kernels._RAMP)


@triton.jit
def _clip(x):
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit
def _compress(t):
    root = tl.exp2(tl.log2(tl.maximum(t, 0.008856)) * (1 / 3))
    return tl.where(t > 0.008856, root, 7.787 * t + 4 / 29)


@triton.jit
def _expand(t):
    return tl.where(t > 0.2068966, t * t * t, (t - 4 / 29) * (1 / 7.787))


@triton.jit
def _encode(x):
    x = _clip(x)
    power = 1.055 * tl.exp2(tl.log2(tl.maximum(x, 0.0031308)) * (1 / 2.4)) - 0.055
    return tl.where(x > 0.0031308, power, 12.92 * x)


@triton.jit
def _rgb(r, g, b, p):
    return (
        _clip(tl.load(p) * r + tl.load(p + 3)),
        _clip(tl.load(p + 1) * g + tl.load(p + 4)),
        _clip(tl.load(p + 2) * b + tl.load(p + 5)),
    )


@triton.jit
def _lab(r, g, b, p):
    """From linear light; see `kernels._lab`."""
    fx = _compress((0.412453 / 0.95047) * r + (0.357580 / 0.95047) * g + (0.180423 / 0.95047) * b)
    fy = _compress(0.212671 * r + 0.715160 * g + 0.072169 * b)
    fz = _compress((0.019334 / 1.08883) * r + (0.119193 / 1.08883) * g + (0.950227 / 1.08883) * b)
    ny = tl.load(p) * fy + tl.load(p + 3)
    nx = ny + tl.load(p + 1) * (fx - fy) + tl.load(p + 4)
    nz = tl.maximum(ny - tl.load(p + 2) * (fy - fz) - tl.load(p + 5), 0.0)
    x, y, z = _expand(nx) * 0.95047, _expand(ny), _expand(nz) * 1.08883
    return (
        _encode(3.2404813432 * x - 1.5371515163 * y - 0.4985363262 * z),
        _encode(-0.9692549500 * x + 1.8759900015 * y + 0.0415559266 * z),
        _encode(0.0556466391 * x - 0.2040413384 * y + 1.0573110697 * z),
    )


@triton.jit
def _hsv(r, g, b, p):
    """From bytes; see `kernels._hsv` for what p holds.

    Hue jumps from 0 to 6 where green and blue are equal. Differences of bytes are exact; those of
    bytes / 255 are not once a compiler makes one operation of product and difference.
    """
    v = tl.maximum(r, tl.maximum(g, b))
    d = v - tl.minimum(r, tl.minimum(g, b))
    s = d / tl.maximum(v, 1.0)
    q = 1.0 / tl.where(d > 0, d, 1.0)
    h = tl.where(g >= b, 2.0 + (b - r) * q, 4.0 + (r - g) * q)
    h = tl.where((r >= g) & (r >= b), (g - b) * q, h)
    h = tl.where(h >= 0, h, h + 6.0) - tl.load(p + 6)
    h = tl.load(p) * (h - tl.load(p + 7) * tl.floor(h * (1 / 6) + 0.5)) + tl.load(p + 3)
    h -= 6.0 * tl.floor(h * (1 / 6))
    v = tl.load(p + 2) * (1 / 255) * v + tl.load(p + 5)
    c = v * (tl.load(p + 1) * s + tl.load(p + 4))
    return (
        _clip(v - c * _clip(2.0 - tl.abs(h - 3.0))),
        _clip(v - c * _clip(tl.abs(h - 2.0) - 1.0)),
        _clip(v - c * _clip(tl.abs(h - 4.0) - 1.0)),
    )


@triton.jit
def _hed(r, g, b, p):
    """From log2 of RGB."""
    y0 = tl.load(p) * r + tl.load(p + 1) * g + tl.load(p + 2) * b + tl.load(p + 9)
    y1 = tl.load(p + 3) * r + tl.load(p + 4) * g + tl.load(p + 5) * b + tl.load(p + 10)
    y2 = tl.load(p + 6) * r + tl.load(p + 7) * g + tl.load(p + 8) * b + tl.load(p + 11)
    return _clip(tl.exp2(y0)), _clip(tl.exp2(y1)), _clip(tl.exp2(y2))


@triton.jit
def _dense(x, p, c: tl.constexpr):
    return tl.maximum(tl.load(p + c) - tl.log2(tl.maximum(x, _LEAST_LIGHT)), 0.0)


@triton.jit
def _recoloured(d, amount, p, c: tl.constexpr):
    nuclei = tl.minimum(tl.maximum(d - tl.load(p + 3 + c), 0.0), tl.load(p + 6 + c))
    d += amount * tl.load(p + 12 + c) + tl.load(p + 9 + c) * nuclei
    return _WHITE * tl.exp2(-tl.maximum(d, 0.0))


@triton.jit
def _od(r, g, b, p):
    """See `kernels._od` for what p holds."""
    d0, d1, d2 = _dense(r, p, 0), _dense(g, p, 1), _dense(b, p, 2)
    amount = tl.minimum((d0 + d1 + d2) * tl.load(p + 18), 1.0)
    y0, y1 = _recoloured(d0, amount, p, 0), _recoloured(d1, amount, p, 1)
    red = _WHITE * tl.minimum(tl.maximum(r, _LEAST_LIGHT) * tl.load(p + 15), 1.0)
    green = _WHITE * tl.minimum(tl.maximum(g, _LEAST_LIGHT) * tl.load(p + 16), 1.0)
    lacking = tl.maximum(tl.minimum(red - green, 0.0) - (y0 - y1), 0.0)
    return y0 + _RED_PART * lacking, y1 - _GREEN_PART * lacking, _recoloured(d2, amount, p, 2)


@triton.jit
def _branch(kind: tl.constexpr, bytes0, bytes1, bytes2, linear, p):
    """Eq. 9 in one space, of bytes."""
    r, g, b = bytes0 * (1 / 255), bytes1 * (1 / 255), bytes2 * (1 / 255)
    if kind == _OD:
        y0, y1, y2 = _od(r, g, b, p)
    elif kind == _RGB:
        y0, y1, y2 = _rgb(r, g, b, p)
    elif kind == _HSV:
        y0, y1, y2 = _hsv(bytes0, bytes1, bytes2, p)
    elif kind == _LAB:
        r, g, b = (
            tl.load(linear + bytes0.to(tl.int32)),
            tl.load(linear + bytes1.to(tl.int32)),
            tl.load(linear + bytes2.to(tl.int32)),
        )
        y0, y1, y2 = _lab(r, g, b, p)
    else:
        r, g, b = (
            tl.log2(tl.maximum(r, _DARKEST)),
            tl.log2(tl.maximum(g, _DARKEST)),
            tl.log2(tl.maximum(b, _DARKEST)),
        )
        y0, y1, y2 = _hed(r, g, b, p)
    return y0, y1, y2


@triton.jit
def _bytes(pixels, at, inside):
    return (
        tl.load(pixels + 3 * at, mask=inside, other=0).to(tl.float32),
        tl.load(pixels + 3 * at + 1, mask=inside, other=0).to(tl.float32),
        tl.load(pixels + 3 * at + 2, mask=inside, other=0).to(tl.float32),
    )


@triton.jit
def _finish(r, g, b, y0, y1, y2, p, least_weight, out, at, inside):
    """See `kernels._finish`; y in [0, 1]."""
    y0, y1, y2 = 255.0 * _clip(y0), 255.0 * _clip(y1), 255.0 * _clip(y2)
    before = _W0 * r + _W1 * g + _W2 * b
    after = _W0 * y0 + _W1 * y1 + _W2 * y2
    ratio = tl.maximum(after, _LEAST_LUMINANCE * before) / tl.maximum(before, 1.0)
    ramp = _clip((tl.load(p + 3) - before) * tl.load(p + 4))
    depth = ramp * ramp * (3.0 - 2.0 * ramp)
    y0 += depth * (tl.minimum(r * ratio, 255.0) - y0)
    y1 += depth * (tl.minimum(g * ratio, 255.0) - y1)
    y2 += depth * (tl.minimum(b * ratio, 255.0) - y2)
    lacking = tl.load(p + 5) * tl.maximum(tl.minimum(r - g, 0.0) - (y0 - y1), 0.0)
    y0 += _RED_PART * lacking
    y1 -= _GREEN_PART * lacking
    least = tl.minimum(r * tl.load(p), tl.minimum(g * tl.load(p + 1), b * tl.load(p + 2)))
    ramp = _clip((_CLEAR - least) * _RAMP)
    weight = tl.maximum(ramp * ramp * (3.0 - 2.0 * ramp), least_weight)
    r += weight * (y0 - r)
    g += weight * (y1 - g)
    b += weight * (y2 - b)
    tl.store(out + 3 * at, (r + 0.5).to(tl.int32).to(tl.uint8), mask=inside)
    tl.store(out + 3 * at + 1, (g + 0.5).to(tl.int32).to(tl.uint8), mask=inside)
    tl.store(out + 3 * at + 2, (b + 0.5).to(tl.int32).to(tl.uint8), mask=inside)


@triton.jit(do_not_specialize=["stride", "pixels"])
def average(
    tiles,
    out,
    parameters,
    stride,
    weights,
    linear,
    least_weight,
    pixels,
    kinds: tl.constexpr,
    spaces: tl.constexpr,
    block: tl.constexpr,
):
    """Branches averaged with constant weights; a program is a block of a tile's pixels."""
    tile = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < pixels
    p = parameters + tile * stride
    r, g, b = _bytes(tiles + 3 * tile * pixels, at, inside)
    y0, y1, y2 = r * 0.0, r * 0.0, r * 0.0
    for s in tl.static_range(spaces):
        own = p + _FIRST + s * _COEFFICIENTS
        z0, z1, z2 = _branch((kinds >> (3 * s)) & 7, r, g, b, linear, own)
        weight = tl.load(weights + 2 * s)
        y0 += weight * z0
        y1 += weight * z1
        y2 += weight * z2
    _finish(r, g, b, y0, y1, y2, p, least_weight, out + 3 * tile * pixels, at, inside)


@triton.jit
def _pooled(values, inside):
    return tl.max(tl.where(inside, values, -3e38), axis=1)


@triton.jit(do_not_specialize=["stride", "height", "width", "down", "across"])
def pool(
    tiles,
    tokens,
    parameters,
    stride,
    scores,
    linear,
    height,
    width,
    down,
    across,
    kinds: tl.constexpr,
    spaces: tl.constexpr,
    count: tl.constexpr,
):
    """Query, key and value of tokens (N, spaces, 5, down, across); a program is part of a row."""
    tile = tl.program_id(0).to(tl.int64)
    parts = tl.cdiv(across, count)
    token_row = tl.program_id(1) // parts
    column = tl.program_id(1) % parts * count + tl.arange(0, count)
    inner = tl.arange(0, _TOKEN_PX * _TOKEN_PX)
    y = token_row * _TOKEN_PX + (inner // _TOKEN_PX)[None, :] + 0 * column[:, None]
    x = column[:, None] * _TOKEN_PX + (inner % _TOKEN_PX)[None, :]
    inside = (y < height) & (x < width)
    p = parameters + tile * stride
    r, g, b = _bytes(tiles + 3 * tile * height * width, y * width + x, inside)
    there = column < across
    for s in tl.static_range(spaces):
        own = p + _FIRST + s * _COEFFICIENTS
        y0, y1, y2 = _branch((kinds >> (3 * s)) & 7, r, g, b, linear, own)
        w = scores + 8 * s
        query = tl.load(w) * y0 + tl.load(w + 1) * y1 + tl.load(w + 2) * y2 + tl.load(w + 3)
        key = tl.load(w + 4) * y0 + tl.load(w + 5) * y1 + tl.load(w + 6) * y2 + tl.load(w + 7)
        plane = down * across
        to = tokens + (tile * spaces + s) * 5 * plane + token_row * across + column
        tl.store(to, _pooled(query, inside), mask=there)
        tl.store(to + plane, _pooled(key, inside), mask=there)
        tl.store(to + 2 * plane, _pooled(y0, inside), mask=there)
        tl.store(to + 3 * plane, _pooled(y1, inside), mask=there)
        tl.store(to + 4 * plane, _pooled(y2, inside), mask=there)


@triton.jit
def _stretched(maps, corner0, corner1, corner2, corner3, ty, tx, inside):
    """A map of tokens at pixels, bilinear: its four tokens, and how far between them."""
    a = tl.load(maps + corner0, mask=inside, other=0.0)
    b = tl.load(maps + corner1, mask=inside, other=0.0)
    c = tl.load(maps + corner2, mask=inside, other=0.0)
    d = tl.load(maps + corner3, mask=inside, other=0.0)
    upper, lower = a + tx * (b - a), c + tx * (d - c)
    return upper + ty * (lower - upper)


@triton.jit
def _fused(ys, es, weights, channel: tl.constexpr, spaces: tl.constexpr, paper: tl.constexpr):
    """Eq. 14 (as `kernels._fuse_paper`) or the product, of one channel."""
    value = ys[0] * 0.0
    if paper:
        total = value + _EPS
        for s in tl.static_range(spaces):
            total += es[3 * s + channel]
        denominator = value
        for s in tl.static_range(spaces):
            weight = tl.load(weights + 2 * s) * es[3 * s + channel]
            weight += tl.load(weights + 2 * s + 1) * total
            weight = tl.maximum(weight, _MIN_WEIGHT * total)
            value += weight * ys[3 * s + channel]
            denominator += weight
        value = value / denominator
    else:
        for s in tl.static_range(spaces):
            value += tl.load(weights + 2 * s) * es[3 * s + channel] * ys[3 * s + channel]
    return value


@triton.jit(do_not_specialize=["stride", "height", "width", "down", "across"])
def attend(
    tiles,
    out,
    parameters,
    stride,
    weights,
    linear,
    maps,
    least_weight,
    height,
    width,
    down,
    across,
    kinds: tl.constexpr,
    spaces: tl.constexpr,
    paper: tl.constexpr,
    block: tl.constexpr,
):
    """Branches fused by attention maps (N, spaces, 3, down, across)."""
    tile = tl.program_id(0).to(tl.int64)
    pixels = height * width
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < pixels
    p = parameters + tile * stride
    y = tl.maximum((at // width + 0.5) * (1 / _TOKEN_PX) - 0.5, 0.0)
    x = tl.maximum((at % width + 0.5) * (1 / _TOKEN_PX) - 0.5, 0.0)
    above, left = y.to(tl.int32), x.to(tl.int32)
    ty, tx = y - above, x - left
    below, right = tl.minimum(above + 1, down - 1), tl.minimum(left + 1, across - 1)
    corner0, corner1 = above * across + left, above * across + right
    corner2, corner3 = below * across + left, below * across + right
    r, g, b = _bytes(tiles + 3 * tile * pixels, at, inside)
    ys = ()
    es = ()
    for s in tl.static_range(spaces):
        own = p + _FIRST + s * _COEFFICIENTS
        z = _branch((kinds >> (3 * s)) & 7, r, g, b, linear, own)
        ys += (z[0], z[1], z[2])
        for c in tl.static_range(3):
            plane = maps + ((tile * spaces + s) * 3 + c) * down * across
            m = _stretched(plane, corner0, corner1, corner2, corner3, ty, tx, inside)
            es += (m + z[c] if paper else m,)
    y0 = _fused(ys, es, weights, 0, spaces, paper)
    y1 = _fused(ys, es, weights, 1, spaces, paper)
    y2 = _fused(ys, es, weights, 2, spaces, paper)
    _finish(r, g, b, y0, y1, y2, p, least_weight, out + 3 * tile * pixels, at, inside)
