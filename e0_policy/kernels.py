# mypy: ignore-errors
# ruff: noqa: N803 (what is known at compile time is upper case, as is usual in Triton)
"""Triton kernels of the action expert and of the glue between the prefix's matrix products; needs a CUDA GPU.

A denoising step moves 35 MB of weights per layer (8 us at the 4.3 TB/s of an H200) and multiplies them with few rows,
so launches and passes over activations cost more than arithmetic. A layer is five kernels:

    project (q, k, v)   q, k, v = turn(r * (xs W^T) + c)                    keys and values go straight to the cache
    attend              softmax(q k^T) v, the keys split among programs
    accumulate (out)    x += gate * (a W^T);  xs = x * scale of the next norm;  squares = sums of x^2
    project (gate, up)  h = gelu(r * (xs G^T) + c) * (r * (xs U^T) + d)
    accumulate (down)   as above

An adaptive norm `x / rms(x) * scale + shift` before a product with W is `r * ((x * scale) W^T) + shift W^T` with
`r = 1 / rms(x)`: the kernel that makes x also scales it and leaves its sums of squares per tile of columns, the one
that reads it multiplies by r at the end, and `shift W^T` is a constant of the diffusion time.

Where a result has too few tiles to occupy the GPU, several programs share one and leave partial sums; the last to
arrive adds them up in a fixed order, so results do not vary from run to run.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _begin(following, SIZE: tl.constexpr, program, programs, PDL: tl.constexpr):
    """Let the next kernel's programs come, ask for its weights (`SIZE` elements of 2 bytes), wait for the one before.

    The weights travel from memory to the L2 cache while this kernel does something else.
    """
    if PDL:
        gdc_launch_dependents()
    if SIZE > 0:
        lane = tl.arange(0, 128)
        for line in range(program * 128, SIZE // 64, programs * 128):
            place = tl.minimum(line + lane, SIZE // 64 - 1)
            address = (following + place * 64).to(tl.uint64)
            tl.inline_asm_elementwise(
                "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1
            )
    if PDL:
        gdc_wait()


@triton.jit
def _gelu(x):
    """Tanh form: `x * sigmoid(2 u)`, u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    u = 0.7978845608028654 * x * (1.0 + 0.044715 * x * x)
    return x / (1.0 + tl.exp(-2.0 * u))


@triton.jit
def _choose(noisy, clean, offsets, is_clean, SELECT: tl.constexpr):
    """A modulation at `offsets`: `(1, n)`, or per row that of clean tokens where `is_clean` `(m, 1)`."""
    value = tl.load(noisy + offsets).to(tl.float32)[None, :]
    if SELECT:
        value = tl.where(is_clean, tl.load(clean + offsets).to(tl.float32)[None, :], value)
    return value


@triton.jit
def project(
    xs,
    squares,
    weight,
    add,
    add_clean,
    clean,
    out,
    keys,
    values,
    cos,
    sin,
    following,
    rows,
    tokens,
    start,
    total,
    WIDTH: tl.constexpr,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    PARTS: tl.constexpr,
    PARTS_2: tl.constexpr,
    EPS: tl.constexpr,
    ROTARY: tl.constexpr,
    SELECT: tl.constexpr,
    NEXT: tl.constexpr,
    PDL: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Two columns of a product per result, HALF apart: the halves of a head (ROTARY), or gate and up.

    ROTARY: turned queries to `out` `(rows, HEADS * 2 * HALF)`, keys and values behind `start` in the cache
    `(samples, total, 2 * HALF)`. Otherwise `gelu(gate) * up` to `out` `(rows, HALF)`.
    """
    program = tl.program_id(0)
    _begin(following, NEXT, program, tl.num_programs(0), PDL)
    blocks = tl.cdiv(rows, BM)
    row = (program % blocks) * BM + tl.arange(0, BM)
    pair = (program // blocks) * BN
    head, inner = pair // HALF, pair % HALF + tl.arange(0, BN)
    column = head * 2 * HALF + inner
    there = row[:, None] < rows
    depth = tl.arange(0, BK)
    left = xs + row[:, None] * WIDTH + depth[None, :]
    right = weight + column[:, None] * WIDTH + depth[None, :]
    first = tl.zeros((BM, BN), tl.float32)
    second = tl.zeros((BM, BN), tl.float32)
    for k in range(0, WIDTH, BK):
        a = tl.load(left + k, mask=there, other=0.0)
        w_first = tl.load(right + k)
        w_second = tl.load(right + HALF * WIDTH + k)
        first = tl.dot(a, tl.trans(w_first), first, input_precision="ieee")
        second = tl.dot(a, tl.trans(w_second), second, input_precision="ieee")
    part = tl.arange(0, PARTS_2)
    sums = tl.load(squares + row[:, None] * PARTS + part[None, :], mask=there & (part[None, :] < PARTS), other=0.0)
    r = (1.0 / tl.sqrt(tl.sum(sums, 1) / WIDTH + EPS))[:, None]
    token = row % tokens
    is_clean = there
    if SELECT:
        is_clean = (tl.load(clean + token, mask=row < rows, other=0) != 0)[:, None]
    first = first * r + _choose(add, add_clean, column, is_clean, SELECT)
    second = second * r + _choose(add, add_clean, column + HALF, is_clean, SELECT)
    kind = out.dtype.element_ty
    if ROTARY:
        if head <= HEADS:
            turn = token[:, None] * 2 * HALF + inner[None, :]
            c = tl.load(cos + turn, mask=there, other=0.0).to(tl.float32)
            s = tl.load(sin + turn + HALF, mask=there, other=0.0).to(tl.float32)
            turned = first * c - second * s
            second = second * c + first * s
            first = turned
        cell = ((row // tokens) * total + start + token)[:, None] * 2 * HALF + inner[None, :]
        if head < HEADS:
            place = out + row[:, None] * HEADS * 2 * HALF + column[None, :]
            tl.store(place, first.to(kind), mask=there)
            tl.store(place + HALF, second.to(kind), mask=there)
        elif head == HEADS:
            tl.store(keys + cell, first.to(kind), mask=there)
            tl.store(keys + cell + HALF, second.to(kind), mask=there)
        else:
            tl.store(values + cell, first.to(kind), mask=there)
            tl.store(values + cell + HALF, second.to(kind), mask=there)
    else:
        tl.store(out + row[:, None] * HALF + inner[None, :], (_gelu(first) * second).to(kind), mask=there)


@triton.jit
def accumulate(
    a,
    weight,
    x,
    xs,
    squares,
    gate,
    gate_clean,
    scale,
    scale_clean,
    clean,
    work,
    arrivals,
    following,
    rows,
    tokens,
    WIDTH: tl.constexpr,
    OUT: tl.constexpr,
    SPLITS: tl.constexpr,
    SELECT: tl.constexpr,
    NEXT: tl.constexpr,
    PDL: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """`x += gate * (a W^T)` in place, `(rows, OUT)`; also what the next norm needs.

    `xs` is `x * scale`; `squares` `(rows, OUT / BN)` the sum of squares of each tile's part of a row. `work` holds
    `(tiles, SPLITS, BM, BN)` partial sums; `arrivals` counts per tile and is zero before and after.
    """
    program = tl.program_id(0)
    _begin(following, NEXT, program, tl.num_programs(0), PDL)
    blocks = tl.cdiv(rows, BM)
    split = program % SPLITS
    tile = program // SPLITS
    block, strip = tile % blocks, tile // blocks
    row = block * BM + tl.arange(0, BM)
    column = strip * BN + tl.arange(0, BN)
    there = row[:, None] < rows
    depth = split * (WIDTH // SPLITS) + tl.arange(0, BK)
    left = a + row[:, None] * WIDTH + depth[None, :]
    right = weight + column[:, None] * WIDTH + depth[None, :]
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, WIDTH // SPLITS, BK):
        acc = tl.dot(
            tl.load(left + k, mask=there, other=0.0), tl.trans(tl.load(right + k)), acc, input_precision="ieee"
        )
    last = True
    if SPLITS > 1:
        cell = tl.arange(0, BM)[:, None] * BN + tl.arange(0, BN)[None, :]
        mine = work + tile * SPLITS * BM * BN + cell
        tl.store(mine + split * BM * BN, acc, mask=there)
        tl.debug_barrier()
        last = tl.atomic_add(arrivals + tile, 1, sem="acq_rel") == SPLITS - 1
    if last:
        if SPLITS > 1:
            acc = tl.zeros((BM, BN), tl.float32)
            for s in tl.range(0, SPLITS, num_stages=1):
                acc += tl.load(mine + s * BM * BN, mask=there, other=0.0, cache_modifier=".cg")
            tl.store(arrivals + tile, 0)
        is_clean = there
        if SELECT:
            is_clean = (tl.load(clean + row % tokens, mask=row < rows, other=0) != 0)[:, None]
        place = row[:, None] * OUT + column[None, :]
        kind = x.dtype.element_ty
        old = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
        new = (old + acc * _choose(gate, gate_clean, column, is_clean, SELECT)).to(kind)
        tl.store(x + place, new, mask=there)
        new = new.to(tl.float32)
        scaled = new * _choose(scale, scale_clean, column, is_clean, SELECT)
        tl.store(xs + place, scaled.to(kind), mask=there)
        tl.store(squares + row * (OUT // BN) + strip, tl.sum(new * new, 1), mask=row < rows)


@triton.jit
def attend(
    q,
    keys,
    values,
    out,
    work,
    stats,
    arrivals,
    following,
    rows,
    length,
    total,
    scale,
    SIZE: tl.constexpr,
    STRIP: tl.constexpr,
    SPLITS: tl.constexpr,
    NEXT: tl.constexpr,
    PDL: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Attention of many queries over one head of keys, flash style (Dao et al., arXiv 2205.14135).

    `q` and `out` are `(samples, rows, SIZE)`, tokens and heads folded into rows; keys and values `(samples, total,
    SIZE)`, of which the first `length` count. `scale` includes log2(e). Partial results as in `accumulate`: `work`
    `(blocks, SPLITS, BM, SIZE)`, `stats` `(blocks, SPLITS, 2, BM)` with the maximum and the sum.
    """
    program, sample = tl.program_id(0), tl.program_id(1)
    programs = tl.num_programs(0) * tl.num_programs(1)
    _begin(following, NEXT, sample * tl.num_programs(0) + program, programs, PDL)
    split, block = program % SPLITS, program // SPLITS
    row = block * BM + tl.arange(0, BM)
    inner = tl.arange(0, SIZE)
    there = row[:, None] < rows
    place = sample * rows * SIZE + row[:, None] * SIZE + inner[None, :]
    query = tl.load(q + place, mask=there, other=0.0)
    share = tl.cdiv(tl.cdiv(length, BN), SPLITS) * BN
    begin = split * share
    end = tl.minimum(begin + share, length)
    key = tl.arange(0, BN)
    cell = sample * total * SIZE + key[:, None] * SIZE + inner[None, :]
    top = tl.full((BM,), float("-inf"), tl.float32)
    mass = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, SIZE), tl.float32)
    for n in range(begin, end, BN):
        seen = n + key < length
        k = tl.load(keys + cell + n * SIZE, mask=seen[:, None], other=0.0)
        logit = tl.dot(query, tl.trans(k), input_precision="ieee") * scale
        logit = tl.where(seen[None, :], logit, float("-inf"))
        higher = tl.maximum(top, tl.max(logit, 1))
        weight = tl.exp2(logit - higher[:, None])
        fade = tl.exp2(top - higher)
        mass = mass * fade + tl.sum(weight, 1)
        v = tl.load(values + cell + n * SIZE, mask=seen[:, None], other=0.0)
        acc = tl.dot(weight.to(v.dtype), v, acc * fade[:, None], input_precision="ieee")
        top = higher
    if SPLITS == 1:
        tl.store(out + place, (acc / mass[:, None]).to(out.dtype.element_ty), mask=there)
    else:
        group = sample * (tl.num_programs(0) // SPLITS) + block
        line = tl.arange(0, BM)[:, None] * SIZE
        mine = work + group * SPLITS * BM * SIZE + line
        notes = stats + group * SPLITS * 2 * BM + tl.arange(0, BM)
        tl.store(mine + split * BM * SIZE + inner[None, :], acc, mask=there)
        tl.store(notes + split * 2 * BM, top)
        tl.store(notes + split * 2 * BM + BM, mass)
        tl.debug_barrier()
        if tl.atomic_add(arrivals + group, 1, sem="acq_rel") == SPLITS - 1:
            top = tl.full((BM,), float("-inf"), tl.float32)
            for s in tl.range(0, SPLITS, num_stages=1):
                top = tl.maximum(top, tl.load(notes + s * 2 * BM, cache_modifier=".cg"))
            mass = tl.zeros((BM,), tl.float32)
            for s in tl.range(0, SPLITS, num_stages=1):
                fade = tl.exp2(tl.load(notes + s * 2 * BM, cache_modifier=".cg") - top)
                mass += tl.load(notes + s * 2 * BM + BM, cache_modifier=".cg") * fade
            for c in tl.range(0, SIZE, STRIP, num_stages=1):  # in strips, for want of registers
                strip = c + tl.arange(0, STRIP)[None, :]
                sums = tl.zeros((BM, STRIP), tl.float32)
                for s in tl.range(0, SPLITS, num_stages=1):
                    fade = tl.exp2(tl.load(notes + s * 2 * BM, cache_modifier=".cg") - top)
                    part = tl.load(mine + s * BM * SIZE + strip, mask=there, other=0.0, cache_modifier=".cg")
                    sums += part * fade[:, None]
                target = out + sample * rows * SIZE + row[:, None] * SIZE + strip
                tl.store(target, (sums / mass[:, None]).to(out.dtype.element_ty), mask=there)
            tl.store(arrivals + group, 0)


@triton.jit
def enter(
    x, xs, squares, scale, scale_clean, clean, tokens, WIDTH: tl.constexpr, SELECT: tl.constexpr, N: tl.constexpr
):
    """What `accumulate` leaves for the next norm, from x alone; a program per row."""
    row = tl.program_id(0)
    column = tl.arange(0, N)
    inside = column < WIDTH
    value = tl.load(x + row * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(scale + column, mask=inside, other=0.0).to(tl.float32)
    if SELECT:
        other = tl.load(scale_clean + column, mask=inside, other=0.0).to(tl.float32)
        factor = tl.where(tl.load(clean + row % tokens) != 0, other, factor)
    tl.store(xs + row * WIDTH + column, (value * factor).to(xs.dtype.element_ty), mask=inside)
    tl.store(squares + row, tl.sum(value * value, 0))


@triton.jit
def norm(
    x,
    branch,
    branch_add,
    scale,
    shift,
    out,
    WIDTH: tl.constexpr,
    EPS: tl.constexpr,
    BRANCH: tl.constexpr,
    ADD: tl.constexpr,
    CENTRE: tl.constexpr,
    SHIFT: tl.constexpr,
    PER_ROW: tl.constexpr,
    N: tl.constexpr,
):
    """Residual sum `x += branch + branch_add` and the norm after it to `out`, a program per row.

    CENTRE subtracts the mean (LayerNorm). `scale` and `shift` are `(WIDTH,)`, or `(rows, WIDTH)` with PER_ROW.
    """
    row = tl.program_id(0)
    column = tl.arange(0, N)
    inside = column < WIDTH
    place = row * WIDTH + column
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if BRANCH:
        value += tl.load(branch + place, mask=inside, other=0.0).to(tl.float32)
        if ADD:
            value += tl.load(branch_add + column, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(x.dtype.element_ty)
        tl.store(x + place, rounded, mask=inside)
        value = rounded.to(tl.float32)
    if CENTRE:
        value = tl.where(inside, value - tl.sum(value, 0) / WIDTH, 0.0)
    normed = value / tl.sqrt(tl.sum(value * value, 0) / WIDTH + EPS)
    of = column + row * WIDTH if PER_ROW else column
    normed *= tl.load(scale + of, mask=inside, other=0.0).to(tl.float32)
    if SHIFT:
        normed += tl.load(shift + of, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def turn(qkv, cos, sin, q, keys, values, HEADS: tl.constexpr, HALF: tl.constexpr):
    """Fused projections of the prefix: turned queries to `q`, keys and values to the cache; a program per token."""
    row = tl.program_id(0)
    head = tl.program_id(1)
    inner = tl.arange(0, HALF)
    source = qkv + (row * (HEADS + 2) + head) * 2 * HALF + inner
    first, second = tl.load(source).to(tl.float32), tl.load(source + HALF).to(tl.float32)
    if head <= HEADS:
        c = tl.load(cos + row * 2 * HALF + inner).to(tl.float32)
        s = tl.load(sin + row * 2 * HALF + HALF + inner).to(tl.float32)
        turned = first * c - second * s
        second = second * c + first * s
        first = turned
    kind = q.dtype.element_ty
    cell = row * 2 * HALF + inner
    if head < HEADS:
        place = q + (row * HEADS + head) * 2 * HALF + inner
        tl.store(place, first.to(kind))
        tl.store(place + HALF, second.to(kind))
    elif head == HEADS:
        tl.store(keys + cell, first.to(kind))
        tl.store(keys + cell + HALF, second.to(kind))
    else:
        tl.store(values + cell, first.to(kind))
        tl.store(values + cell + HALF, second.to(kind))


@triton.jit
def gated_gelu(gate_up, out, HALF: tl.constexpr, N: tl.constexpr):
    """`gelu(gate) * up` of `(rows, 2 * HALF)` to `(rows, HALF)`."""
    row = tl.program_id(0)
    column = tl.program_id(1) * N + tl.arange(0, N)
    inside = column < HALF
    gate = tl.load(gate_up + row * 2 * HALF + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * HALF + HALF + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * HALF + column, (_gelu(gate) * up).to(out.dtype.element_ty), mask=inside)
