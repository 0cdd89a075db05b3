"""The layer on one uint8 tile, fused: a few passes over the tile, one thread, without the GIL.

The arithmetic is that of `wsi_norm.lstainnorm` in float32. A row is worked on in strips of LANES
pixels that stay in the L1 cache; every inner loop runs over one strip of fixed length and has no
branch, so that LLVM turns it into vector instructions. Only the branches of eq. 9 (`y`) go through
memory, for attention needs all tokens before the first pixel can be fused.

A space is given by its number and up to COEFFICIENTS coefficients (see `fused.py`), the spaces
together as a tuple: its length is a constant of the compiled code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from wsi_norm.compiled import compiled
from wsi_norm.glass import BLACK, FILL_PX, GLASS_ABSORPTION, TISSUE_ABSORPTION, USUAL_WHITE
from wsi_norm.lstainnorm.config import MIN_WEIGHT, TOKEN_PX
from wsi_norm.lstainnorm.moments import EPS, NO_PIVOT, PIVOT
from wsi_norm.lstainnorm.shadow import GREEN_PART, LEAST_LUMINANCE, LUMINANCE, RED_PART
from wsi_norm.spaces import DARKEST, DENSITY_TO_STAIN, LEAST_LIGHT, Space

F32 = np.float32
I32 = np.int32

LANES = 256
RGB, LAB, HSV, HED, OD = range(5)
KINDS: dict[Space, int] = {"rgb": RGB, "lab": LAB, "hsv": HSV, "hed": HED, "od": OD}
"""The spaces that have a kernel.

Numbers that the layer has too are imported, never repeated. After one of them is changed elsewhere,
this file must be touched: numba's cache knows code by its file.
"""
PAPER, PRODUCT, MEAN = range(3)
COEFFICIENTS = 19

_PIVOT = np.array([PIVOT.get(space, NO_PIVOT) for space in KINDS], F32)
_W = LUMINANCE
_CLEAR = 1 - GLASS_ABSORPTION
_RAMP = 1 / (TISSUE_ABSORPTION - GLASS_ABSORPTION)

_STAIN = (DENSITY_TO_STAIN / np.log2(DARKEST)).astype(F32)
"""Stain amounts of log2 of RGB."""

_OPTIONS: Any = {"nogil": True, "fastmath": True, "error_model": "numpy"}
_inlined = njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)
"""Part of what calls it, always: a function of its own is compiled another time where it stands
alone, and the process that compiles takes that one, later ones that of the cache: other sums."""
_cached = compiled(**_OPTIONS)


@intrinsic
def _bits(_context: Any, _x: Any) -> Any:
    def generate(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def _from_bits(_context: Any, _x: Any) -> Any:
    def generate(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@_inlined
def _clip(x):
    return min(max(x, F32(0)), F32(1))


@_inlined
def _exp2(x):
    """2^x, relative error 2e-7; x >= -126 (below, the smallest normal number)."""
    x = max(x, F32(-126))
    whole = np.floor(x + F32(0.5))
    t = x - whole
    p = F32(0.0013305470) * t + F32(0.0096767600)
    p = p * t + F32(0.0555060486)
    p = p * t + F32(0.2402209449)
    p = p * t + F32(0.6931470630)
    p = p * t + F32(1.0000000678)
    return _from_bits(_bits(p) + (I32(whole) << I32(23)))


@_inlined
def _cube_root(x):
    """x^(1/3), relative error 4e-7 in [1e-12, 10]: a guess by the exponent, mended by a series."""
    r = _from_bits(I32(F32(1419900954.7) - F32(_bits(x)) * F32(1 / 3)))  # x^(-1/3) to 3 %
    h = F32(1) - x * r * r * r
    p = F32(0.4571957974) * h + F32(0.4993791334)
    p = p * h + F32(0.5555486546)
    p = p * h + F32(0.6666521827)
    return x * r * r * (p * h + F32(1))


@_inlined
def _compress(t):
    """CIELAB's f."""
    root = _cube_root(max(t, F32(0.008856)))
    return root if t > F32(0.008856) else F32(7.787) * t + F32(4 / 29)


@_inlined
def _expand(t):
    """The inverse of CIELAB's f."""
    return t * t * t if t > F32(0.2068966) else (t - F32(4 / 29)) * F32(1 / 7.787)


@_inlined
def _encode(x):
    """Linear light to sRGB, clipped to [0, 1]; x^(1 / 2.4) is x^(1/3) times its fourth root."""
    x = _clip(x)
    root = _cube_root(max(x, F32(0.0031308)))
    power = F32(1.055) * root * np.sqrt(np.sqrt(root)) - F32(0.055)
    return power if x > F32(0.0031308) else F32(12.92) * x


@_inlined
def _fxyz(r, g, b):
    """CIELAB's f of X, Y, Z of linear light."""
    fx = _compress(
        F32(0.412453 / 0.95047) * r + F32(0.357580 / 0.95047) * g + F32(0.180423 / 0.95047) * b
    )
    fy = _compress(F32(0.212671) * r + F32(0.715160) * g + F32(0.072169) * b)
    fz = _compress(
        F32(0.019334 / 1.08883) * r + F32(0.119193 / 1.08883) * g + F32(0.950227 / 1.08883) * b
    )
    return fx, fy, fz


@_inlined
def _hue(r, g, b, d):
    """Hue in sixths of a turn: the base (0, 2, 4: the largest channel) and what is added to it."""
    q = F32(1) / (d if d > F32(0) else F32(1))
    base = F32(2) if g >= b else F32(4)
    more = (b - r) * q if g >= b else (r - g) * q
    red = (r >= g) & (r >= b)
    return F32(0) if red else base, (g - b) * q if red else more


@_inlined
def _padded(values, strip):
    """A full strip of values: these, or a copy of them in `strip`."""
    if len(values) == len(strip):
        return values
    for i in range(len(values)):
        strip[i] = values[i]
    return strip


@_inlined
def _scaled(line, planes):
    """A strip's bytes as planes in [0, 1]."""
    for x in range(LANES):
        planes[x] = F32(line[3 * x]) * F32(1 / 255)
        planes[LANES + x] = F32(line[3 * x + 1]) * F32(1 / 255)
        planes[2 * LANES + x] = F32(line[3 * x + 2]) * F32(1 / 255)


@_inlined
def _looked_up(line, table, planes):
    """A strip's bytes as planes of a function of the byte: linear light, or log2."""
    for x in range(LANES):
        planes[x] = table[line[3 * x]]
        planes[LANES + x] = table[line[3 * x + 1]]
        planes[2 * LANES + x] = table[line[3 * x + 2]]


@_inlined
def _rgb(u, p, y):
    g0, g1, g2, c0, c1, c2 = p[0], p[1], p[2], p[3], p[4], p[5]
    for x in range(LANES):
        y[x] = _clip(g0 * u[x] + c0)
        y[LANES + x] = _clip(g1 * u[LANES + x] + c1)
        y[2 * LANES + x] = _clip(g2 * u[2 * LANES + x] + c2)


@_inlined
def _lab(u, p, y):
    """From linear light; L*, a*, b* and their matching are folded into f of X, Y, Z.

    Three loops, each short enough for the processor to work on several of its turns at once.
    """
    g0, g1, g2, c0, c1, c2 = p[0], p[1], p[2], p[3], p[4], p[5]
    for x in range(LANES):
        fx, fy, fz = _fxyz(u[x], u[LANES + x], u[2 * LANES + x])
        y[x], y[LANES + x], y[2 * LANES + x] = fx, fy, fz
    for x in range(LANES):
        fx, fy, fz = y[x], y[LANES + x], y[2 * LANES + x]
        ny = g0 * fy + c0
        nx = ny + g1 * (fx - fy) + c1
        nz = max(ny - g2 * (fy - fz) - c2, F32(0))
        px, py, pz = _expand(nx) * F32(0.95047), _expand(ny), _expand(nz) * F32(1.08883)
        y[x] = F32(3.2404813432) * px - F32(1.5371515163) * py - F32(0.4985363262) * pz
        y[LANES + x] = F32(-0.9692549500) * px + F32(1.8759900015) * py + F32(0.0415559266) * pz
        y[2 * LANES + x] = F32(0.0556466391) * px - F32(0.2040413384) * py + F32(1.0573110697) * pz
    for x in range(3 * LANES):
        y[x] = _encode(y[x])


@_inlined
def _hsv(u, p, y):
    """p[6] is the mean hue, p[7] the period of deviations from it (0: none is wrapped)."""
    g0, g1, g2, c0, c1, c2, mean, period = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]
    for x in range(LANES):
        r, g, b = u[x], u[LANES + x], u[2 * LANES + x]
        v = max(r, max(g, b))
        d = v - min(r, min(g, b))
        s = d / (v + F32(1e-8))
        base, more = _hue(r, g, b, d)
        h = base + more
        h = h if h >= F32(0) else h + F32(6)
        h -= mean
        h = g0 * (h - period * np.floor(h * F32(1 / 6) + F32(0.5))) + c0
        h -= F32(6) * np.floor(h * F32(1 / 6))
        v = g2 * v + c2
        c = v * (g1 * s + c1)
        y[x] = _clip(v - c * _clip(F32(2) - abs(h - F32(3))))
        y[LANES + x] = _clip(v - c * _clip(abs(h - F32(2)) - F32(1)))
        y[2 * LANES + x] = _clip(v - c * _clip(abs(h - F32(4)) - F32(1)))


@_inlined
def _hed(u, p, y):
    """From log2 of RGB: matching stains is a matrix (by rows) and a shift (p[9:]) there."""
    a0, a1, a2, b0, b1, b2 = p[0], p[1], p[2], p[3], p[4], p[5]
    c0, c1, c2, d0, d1, d2 = p[6], p[7], p[8], p[9], p[10], p[11]
    for x in range(LANES):
        r, g, b = u[x], u[LANES + x], u[2 * LANES + x]
        y[x] = _clip(_exp2(a0 * r + a1 * g + a2 * b + d0))
        y[LANES + x] = _clip(_exp2(b0 * r + b1 * g + b2 * b + d1))
        y[2 * LANES + x] = _clip(_exp2(c0 * r + c1 * g + c2 * b + d2))


@_inlined
def _od(x, u, p, y):
    """From RGB and its log2, which all densities are of here.

    p holds by channel: log2 of white, stroma, how far nuclei lie above it, their gain less 1, the
    shift, 1 / white; and at last 1 / the sum of stroma.
    """
    darkest = F32(np.log2(LEAST_LIGHT))
    for i in range(LANES):
        d0 = max(p[0] - max(u[i], darkest), F32(0))
        d1 = max(p[1] - max(u[LANES + i], darkest), F32(0))
        d2 = max(p[2] - max(u[2 * LANES + i], darkest), F32(0))
        amount = min((d0 + d1 + d2) * p[18], F32(1))
        d0 += amount * p[12] + p[9] * min(max(d0 - p[3], F32(0)), p[6])
        d1 += amount * p[13] + p[10] * min(max(d1 - p[4], F32(0)), p[7])
        d2 += amount * p[14] + p[11] * min(max(d2 - p[5], F32(0)), p[8])
        y0 = F32(USUAL_WHITE) * _exp2(-max(d0, F32(0)))
        y1 = F32(USUAL_WHITE) * _exp2(-max(d1, F32(0)))
        red = F32(USUAL_WHITE) * min(max(x[i], F32(LEAST_LIGHT)) * p[15], F32(1))
        green = F32(USUAL_WHITE) * min(max(x[LANES + i], F32(LEAST_LIGHT)) * p[16], F32(1))
        lacking = max(min(red - green, F32(0)) - (y0 - y1), F32(0))
        y[i] = y0 + F32(RED_PART) * lacking
        y[LANES + i] = y1 - F32(GREEN_PART) * lacking
        y[2 * LANES + i] = F32(USUAL_WHITE) * _exp2(-max(d2, F32(0)))


@_inlined
def _branches(line, tables, kinds, coefficients, planes, y):
    """The branches of a strip (eq. 9): y is (spaces, 3 LANES)."""
    _scaled(line, planes)
    for s in range(len(kinds)):
        if kinds[s] == OD:
            _looked_up(line, tables[1], planes[3 * LANES :])
            _od(planes, planes[3 * LANES :], coefficients[s], y[s])
        elif kinds[s] == RGB:
            _rgb(planes, coefficients[s], y[s])
        elif kinds[s] == HSV:
            _hsv(planes, coefficients[s], y[s])
        elif kinds[s] == LAB:
            _looked_up(line, tables[0], planes[3 * LANES :])
            _lab(planes[3 * LANES :], coefficients[s], y[s])
        elif kinds[s] == HED:
            _looked_up(line, tables[1], planes[3 * LANES :])
            _hed(planes[3 * LANES :], coefficients[s], y[s])


@_inlined
def _pool(y, w, pool):
    """Running maxima of query, key and value over the rows of a token: pool is (5 LANES,)."""
    q0, q1, q2, q3, k0, k1, k2, k3 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    for x in range(LANES):
        r, g, b = y[x], y[LANES + x], y[2 * LANES + x]
        pool[x] = max(pool[x], q0 * r + q1 * g + q2 * b + q3)
        pool[LANES + x] = max(pool[LANES + x], k0 * r + k1 * g + k2 * b + k3)
        pool[2 * LANES + x] = max(pool[2 * LANES + x], r)
        pool[3 * LANES + x] = max(pool[3 * LANES + x], g)
        pool[4 * LANES + x] = max(pool[4 * LANES + x], b)


@_inlined
def _take_tokens(pool, pixels, tokens):
    """Maxima over the columns of each token of a strip's pixels: tokens is (5, n)."""
    for i in range(5):
        lanes = pool[i * LANES : i * LANES + pixels]
        whole = pixels // TOKEN_PX
        for token in range(whole):
            largest = lanes[TOKEN_PX * token]
            for x in range(1, TOKEN_PX):
                largest = max(largest, lanes[TOKEN_PX * token + x])
            tokens[i, token] = largest
        if pixels % TOKEN_PX:
            tokens[i, whole] = lanes[TOKEN_PX * whole :].max()


@_inlined
def _sums(slope, least, key, red, green, blue):
    """Sums over keys of e = 2^(slope (key - least)), and of e times the values."""
    s0, s1, s2, s3 = F32(0), F32(0), F32(0), F32(0)
    for t in range(len(key)):
        e = _exp2(slope * (key[t] - least))
        s0 += e
        s1 += e * red[t]
        s2 += e * green[t]
        s3 += e * blue[t]
    return s0, s1, s2, s3


@_inlined
def _node(slope, least, tokens, values):
    """The attended value (3,) of the query `slope`; float32 for 512 tokens at most."""
    total = 0.0
    values[:] = 0
    for start in range(0, tokens.shape[1], 512):
        end = start + 512
        s0, s1, s2, s3 = _sums(
            slope,
            least,
            tokens[1][start:end],
            tokens[2][start:end],
            tokens[3][start:end],
            tokens[4][start:end],
        )
        total += s0
        values[0] += s1
        values[1] += s2
        values[2] += s3
    values /= total


@_inlined
def _take_maps(tokens, points, to_coefficients, delta, maps):
    """Attention of one space times delta: tokens (5, N) to maps (3, N), by Chebyshev nodes."""
    query, key = tokens[0], tokens[1]
    low, high, least, most = query.min(), query.max(), key.min(), key.max()
    middle = (low + high) / F32(2)
    radius = max(high - middle, middle - low, F32(1e-6))  # so that |t| <= 1 in float32 too
    at_nodes = np.empty((len(points), 3))
    for n in range(len(points)):
        slope = F32((middle + radius * points[n]) * 1.4426950408889634)
        _node(slope, most if slope > 0 else least, tokens, at_nodes[n])
    t, before, last = np.empty(LANES, F32), np.empty(LANES, F32), np.empty(LANES, F32)
    for start in range(0, len(query), LANES):
        n = min(LANES, len(query) - start)
        for i in range(n):
            t[i] = (query[start + i] - middle) / radius
        for c in range(3):
            before[:] = 0
            last[:] = 0
            for m in range(len(points) - 1, -1, -1):  # Clenshaw
                coefficient = 0.0
                for k in range(len(points)):
                    coefficient += to_coefficients[m, k] * at_nodes[k, c]
                a, factor = F32(coefficient), F32(2) if m else F32(1)
                for i in range(LANES):
                    before[i] = a + factor * t[i] * last[i] - before[i]
                before, last = last, before
            for i in range(n):
                maps[c, start + i] = delta[c] * max(last[i], F32(0))
    return maps


@_inlined
def _stretch(tokens, rows):
    """A row of tokens to pixels, bilinear: rows is (strips, 3 LANES), its channel a third."""
    for t in range(len(tokens)):
        value = tokens[t]
        step = (tokens[min(t + 1, len(tokens) - 1)] - value) * F32(1 / TOKEN_PX)
        for half in range(2):
            x0 = TOKEN_PX * t + TOKEN_PX // 2 * (half + 1)
            strip, x0 = x0 // LANES, x0 % LANES
            if strip < len(rows):
                for x in range(TOKEN_PX // 2):
                    rows[strip, x0 + x] = value + step * (F32(x + TOKEN_PX // 2 * half) + F32(0.5))
    for x in range(TOKEN_PX // 2):
        rows[0, x] = tokens[0]


@_inlined
def _fuse_paper(kinds, upper, lower, t, y, weights, fused):
    """Eq. 14, numerator and denominator times the sum of evidence: one division a channel."""
    for x in range(3 * LANES):
        total = F32(EPS)
        for s in range(len(kinds)):
            total += upper[s, x] + t * (lower[s, x] - upper[s, x]) + y[s, x]
        numerator, denominator = F32(0), F32(0)
        for s in range(len(kinds)):
            evidence = upper[s, x] + t * (lower[s, x] - upper[s, x]) + y[s, x]
            weight = max(weights[s, 0] * evidence + weights[s, 1] * total, F32(MIN_WEIGHT) * total)
            numerator += weight * y[s, x]
            denominator += weight
        fused[x] = numerator / denominator


@_inlined
def _fuse_product(kinds, upper, lower, t, y, weights, fused):
    for x in range(3 * LANES):
        value = F32(0)
        for s in range(len(kinds)):
            value += weights[s, 0] * (upper[s, x] + t * (lower[s, x] - upper[s, x])) * y[s, x]
        fused[x] = value


@_inlined
def _fuse_mean(kinds, y, weights, fused):
    for x in range(3 * LANES):
        value = F32(0)
        for s in range(len(kinds)):
            value += weights[s, 0] * y[s, x]
        fused[x] = value


@_inlined
def _tissue(r, g, b, p0, p1, p2):
    ramp = _clip((F32(_CLEAR) - min(r * p0, min(g * p1, b * p2))) * F32(_RAMP))
    return ramp * ramp * (F32(3) - F32(2) * ramp)


@_inlined
def _finish(line, fused, per_white, least_weight, shadow, out, edge):
    """Bound, blend by the tissue weight, round to bytes; a short `out` by way of `edge`."""
    p0, p1, p2 = per_white[0], per_white[1], per_white[2]
    start, slope = shadow[0], shadow[1]
    result = out if len(out) == len(edge) else edge
    for x in range(LANES):
        r, g, b = F32(line[3 * x]), F32(line[3 * x + 1]), F32(line[3 * x + 2])
        y0 = F32(255) * _clip(fused[x])
        y1 = F32(255) * _clip(fused[LANES + x])
        y2 = F32(255) * _clip(fused[2 * LANES + x])
        before = F32(_W[0]) * r + F32(_W[1]) * g + F32(_W[2]) * b
        after = F32(_W[0]) * y0 + F32(_W[1]) * y1 + F32(_W[2]) * y2
        ratio = max(after, F32(LEAST_LUMINANCE) * before) / max(before, F32(1))
        ramp = _clip((start - before) * slope)
        depth = ramp * ramp * (F32(3) - F32(2) * ramp)
        y0 += depth * (min(r * ratio, F32(255)) - y0)
        y1 += depth * (min(g * ratio, F32(255)) - y1)
        y2 += depth * (min(b * ratio, F32(255)) - y2)
        lacking = shadow[2] * max(min(r - g, F32(0)) - (y0 - y1), F32(0))
        y0 += F32(RED_PART) * lacking
        y1 -= F32(GREEN_PART) * lacking
        weight = max(_tissue(r, g, b, p0, p1, p2), least_weight)
        r += weight * (y0 - r)
        g += weight * (y1 - g)
        b += weight * (y2 - b)
        result[3 * x] = np.uint8(I32(r + F32(0.5)))
        result[3 * x + 1] = np.uint8(I32(g + F32(0.5)))
        result[3 * x + 2] = np.uint8(I32(b + F32(0.5)))
    if len(out) < len(edge):
        for i in range(len(out)):
            out[i] = edge[i]


@_inlined
def _turn(base, more):
    """Sine and cosine of a hue in sixths of a turn, by their series about the base."""
    a = more * F32(np.pi / 3)
    q = a * a
    sine = F32(2.7557319e-6) * q - F32(1.9841270e-4)
    sine = ((sine * q + F32(8.3333333e-3)) * q - F32(1 / 6)) * q * a + a
    cosine = F32(-2.7557319e-7) * q + F32(2.4801587e-5)
    cosine = (((cosine * q - F32(1.3888889e-3)) * q + F32(1 / 24)) * q - F32(0.5)) * q + F32(1)
    third = F32(-0.5) if base > F32(0) else F32(1)
    side = F32(np.sqrt(0.75)) if base > F32(0) else F32(0)
    side = -side if base > F32(3) else side
    return side * cosine + third * sine, third * cosine - side * sine


@_inlined
def _to_lab(u, channels):
    for x in range(LANES):
        fx, fy, fz = _fxyz(u[x], u[LANES + x], u[2 * LANES + x])
        channels[x] = F32(116) * fy - F32(16)
        channels[LANES + x] = F32(500) * (fx - fy)
        channels[2 * LANES + x] = F32(200) * (fy - fz)


@_inlined
def _to_hsv(u, channels):
    """Hue in radians, saturation, value; then sine and cosine of hue."""
    for x in range(LANES):
        r, g, b = u[x], u[LANES + x], u[2 * LANES + x]
        v = max(r, max(g, b))
        d = v - min(r, min(g, b))
        base, more = _hue(r, g, b, d)
        h = base + more
        channels[x] = (h if h >= F32(0) else h + F32(6)) * F32(np.pi / 3)
        channels[LANES + x] = d / (v + F32(1e-8))
        channels[2 * LANES + x] = v
        channels[3 * LANES + x], channels[4 * LANES + x] = _turn(base, more)


@_inlined
def _to_hed(u, channels):
    for x in range(LANES):
        r, g, b = u[x], u[LANES + x], u[2 * LANES + x]
        channels[x] = _STAIN[0, 0] * r + _STAIN[1, 0] * g + _STAIN[2, 0] * b
        channels[LANES + x] = _STAIN[0, 1] * r + _STAIN[1, 1] * g + _STAIN[2, 1] * b
        channels[2 * LANES + x] = _STAIN[0, 2] * r + _STAIN[1, 2] * g + _STAIN[2, 2] * b


@_inlined
def _converted(line, tables, kind, planes, channels):
    """The planes of a space: those of RGB, or `channels`."""
    if kind == RGB:
        return planes
    if kind == HSV:
        _to_hsv(planes, channels)
    elif kind == LAB:
        _looked_up(line, tables[0], planes[3 * LANES :])
        _to_lab(planes[3 * LANES :], channels)
    elif kind == HED:
        _looked_up(line, tables[1], planes[3 * LANES :])
        _to_hed(planes[3 * LANES :], channels)
    return channels


@_inlined
def _sums_about(weight, u, m0, m1, m2):
    """Weighted sums over a strip: of each channel's distance from a pivot, and of its square."""
    a0, a1, a2, b0, b1, b2 = F32(0), F32(0), F32(0), F32(0), F32(0), F32(0)
    for x in range(LANES):
        d0, d1, d2 = u[x] - m0, u[LANES + x] - m1, u[2 * LANES + x] - m2
        w0, w1, w2 = weight[x] * d0, weight[x] * d1, weight[x] * d2
        a0, a1, a2 = a0 + w0, a1 + w1, a2 + w2
        b0, b1, b2 = b0 + w0 * d0, b1 + w1 * d1, b2 + w2 * d2
    return ((a0, b0), (a1, b1), (a2, b2))


@_inlined
def _angle_sums(weight, u):
    """Weighted sums over a strip of sine and cosine of hue."""
    sine, cosine = F32(0), F32(0)
    for x in range(LANES):
        sine += weight[x] * u[3 * LANES + x]
        cosine += weight[x] * u[4 * LANES + x]
    return sine, cosine


@_inlined
def _weigh(line, counted, per_white, weight):
    p0, p1, p2 = per_white[0], per_white[1], per_white[2]
    total = F32(0)
    for x in range(LANES):
        r, g, b = F32(line[3 * x]), F32(line[3 * x + 1]), F32(line[3 * x + 2])
        weight[x] = _tissue(r, g, b, p0, p1, p2) * F32(counted[x])
        total += weight[x]
    return total


@_cached
def moments(tile, counted, per_white, darker, tables, kinds, angle, sums, counts):
    """Weighted sums over the tissue of a tile, for mean and standard deviation.

    Parameters
    ----------
    tile, counted
        uint8 (H, W, 3); uint8 (H, W), 1 where a pixel may count.
    per_white
        float32 (3,): 1 / the byte value of glass.
    darker
        int64 (3,): bytes below one of these are tissue whose density counts.
    angle
        Hue's two sums are those of sine and cosine.
    counts
        int64 (3, 256), added to: how often each byte is seen in such tissue.
    sums
        float64 (spaces, 3, 2), added to: as `wsi_norm.lstainnorm.moments.power_sums` gives them.

    Returns
    -------
    Sum of the weights.
    """
    height, width = tile.shape[0], tile.shape[1]
    edge, edge_mask = np.zeros(3 * LANES, np.uint8), np.zeros(LANES, np.uint8)
    planes, channels = np.empty(6 * LANES, F32), np.empty(5 * LANES, F32)
    weight = np.empty(LANES, F32)
    total = 0.0
    d0, d1, d2 = darker[0], darker[1], darker[2]
    pixels, mask = tile.reshape(-1), counted.reshape(-1)
    for row in range(height):
        for x0 in range(0, width, LANES):
            n, first = min(LANES, width - x0), row * width + x0
            line = _padded(pixels[3 * first : 3 * (first + n)], edge)
            valid = _padded(mask[first : first + n], edge_mask)
            amount = _weigh(line, valid, per_white, weight)
            if amount == 0:
                continue
            total += amount
            for x in range(n):
                r, g, b = line[3 * x], line[3 * x + 1], line[3 * x + 2]
                if valid[x] and (r < d0 or g < d1 or b < d2):
                    counts[0, r] += 1
                    counts[1, g] += 1
                    counts[2, b] += 1
            _scaled(line, planes)
            for s in range(len(kinds)):
                if kinds[s] == OD:
                    continue
                pivot = _PIVOT[kinds[s]]
                u = _converted(line, tables, kinds[s], planes, channels)
                strip = _sums_about(weight, u, pivot[0], pivot[1], pivot[2])
                for c in range(3):
                    once, twice = strip[c][0], strip[c][1]
                    if angle and kinds[s] == HSV and c == 0:
                        once, twice = _angle_sums(weight, u)
                    sums[s, c, 0] += once
                    sums[s, c, 1] += twice
    return total


@_cached
def average(tile, out, per_white, least_weight, shadow, tables, kinds, coefficients, weights):
    """Normalise one tile whose branches are averaged.

    Parameters
    ----------
    tile, out
        uint8 (H, W, 3), C-contiguous.
    per_white
        float32 (3,): 1 / the byte value of glass.
    least_weight
        0 preserves the background, 1 normalises it.
    shadow
        float32 (3,): luminance in bytes at which shadow begins, how fast it deepens, and whether
        (1 or 0) what was not greener than red is kept from becoming it.
    tables
        float32 (2, 256): linear light and log2 of a byte.
    kinds
        Tuple of RGB, LAB, HSV, HED, OD.
    coefficients
        float32 (spaces, COEFFICIENTS).
    weights
        float32 (spaces, 2), of which the first counts.
    """
    height, width = tile.shape[0], tile.shape[1]
    edge, result = np.zeros(3 * LANES, np.uint8), np.empty(3 * LANES, np.uint8)
    planes, fused = np.zeros(6 * LANES, F32), np.empty(3 * LANES, F32)
    y = np.empty((len(kinds), 3 * LANES), F32)
    pixels, target = tile.reshape(-1), out.reshape(-1)
    for row in range(height):
        for x0 in range(0, width, LANES):
            n, first = min(LANES, width - x0), row * width + x0
            line = _padded(pixels[3 * first : 3 * (first + n)], edge)
            done = target[3 * first : 3 * (first + n)]
            _branches(line, tables, kinds, coefficients, planes, y)
            _fuse_mean(kinds, y, weights, fused)
            _finish(line, fused, per_white, least_weight, shadow, done, result)


@_cached
def attend(
    tile, out, per_white, least_weight, shadow, tables, kinds, coefficients, fusion, scratch
):
    """Normalise one tile whose branches are fused by attention.

    Parameters
    ----------
    tile, out, per_white, least_weight, shadow, tables, kinds, coefficients
        As those of `average`.
    fusion
        (PAPER or PRODUCT; weights (spaces, 2); scores (spaces, 8); delta (spaces, 3);
        Chebyshev points (n,), to_coefficients (n, n)).
    scratch
        float32, at least `scratch_size` of the tile.
    """
    how, weights, scores, delta, points, to_coefficients = fusion
    height, width = tile.shape[0], tile.shape[1]
    strips, spaces = -(-width // LANES), len(kinds)
    edge, result = np.zeros(3 * LANES, np.uint8), np.empty(3 * LANES, np.uint8)
    planes, fused = np.zeros(6 * LANES, F32), np.empty(3 * LANES, F32)
    y = scratch[: height * strips * spaces * 3 * LANES].reshape(height, strips, spaces, 3 * LANES)
    down, across = -(-height // TOKEN_PX), -(-width // TOKEN_PX)
    tokens = np.empty((spaces, 5, down * across), F32)
    pools = np.empty((strips, spaces, 5 * LANES), F32)
    pixels, target = tile.reshape(-1), out.reshape(-1)
    for row in range(height):
        for strip in range(strips):
            x0 = strip * LANES
            n, first = min(LANES, width - x0), row * width + x0
            line = _padded(pixels[3 * first : 3 * (first + n)], edge)
            part = y[row, strip]
            _branches(line, tables, kinds, coefficients, planes, part)
            if row % TOKEN_PX == 0:
                pools[strip] = F32(-3e38)
            for s in range(spaces):
                _pool(part[s], scores[s], pools[strip, s])
            if row % TOKEN_PX == TOKEN_PX - 1 or row == height - 1:
                token = row // TOKEN_PX * across + x0 // TOKEN_PX
                for s in range(spaces):
                    _take_tokens(pools[strip, s], n, tokens[s, :, token:])
    maps = np.empty((spaces, 3, down, across), F32)
    for s in range(spaces):
        _take_maps(tokens[s], points, to_coefficients, delta[s], maps[s].reshape(3, -1))
    stretched = np.empty((2, strips, spaces, 3 * LANES), F32)
    known = -1
    for row in range(height):
        at = max((row + 0.5) / TOKEN_PX - 0.5, 0.0)
        upper = int(at)
        while known < min(upper + 1, down - 1):  # the rows of tokens above and below are at hand
            known += 1
            for s in range(spaces):
                for c in range(3):
                    lanes = stretched[known % 2, :, s, c * LANES : (c + 1) * LANES]
                    _stretch(maps[s, c, known], lanes)
        t = F32(at - upper)
        for strip in range(strips):
            x0 = strip * LANES
            n, first = min(LANES, width - x0), row * width + x0
            line = _padded(pixels[3 * first : 3 * (first + n)], edge)
            top, part = stretched[upper % 2, strip], y[row, strip]
            bottom = stretched[min(upper + 1, down - 1) % 2, strip]
            if how == PAPER:
                _fuse_paper(kinds, top, bottom, t, part, weights, fused)
            else:
                _fuse_product(kinds, top, bottom, t, part, weights, fused)
            _finish(
                line,
                fused,
                per_white,
                least_weight,
                shadow,
                target[3 * first : 3 * (first + n)],
                result,
            )


@_cached
def may_hold_fill(tile):
    """Whether `glass.fill_mask` needs to look at a tile: much black, or an edge of one colour."""
    height, width = tile.shape[0], tile.shape[1]
    black = 0
    for value in tile.reshape(-1):
        black += I32(value < BLACK)
    if black >= 3 * min(FILL_PX * FILL_PX, height * width):
        return True
    for end in (0, 1):
        if _is_one_colour(tile[end * (height - 1)]) or _is_one_colour(tile[:, end * (width - 1)]):
            return True
    return False


@_inlined
def _is_one_colour(line):
    for i in range(1, len(line)):
        for c in range(3):
            if line[i, c] != line[0, c]:
                return False
    return True


def scratch_size(height: int, width: int, spaces: int) -> int:
    """float32 values that `attend` needs: the branches of the tile."""
    return height * -(-width // LANES) * spaces * 3 * LANES
