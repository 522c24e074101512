"""Run compiled PTX on the CPU, exactly, and count what it does.

For kernels built with no GPU at hand: what `triton.compile(...).asm["ptx"]` or `nvcc -ptx` produced is interpreted
lane by lane (NumPy, one array element a thread), so the *compiled* code is checked, not its source; and every
dynamic fact that does not depend on timing is counted: instructions by kind, global sectors against the bytes asked
for (coalescing), shared-memory bank conflicts, divergence, barriers. Sectors are counted as they are asked for, and
once more as distinct ones, each once a launch: what DRAM must move at least, had the caches room for everything. It
says nothing about time, caches or races.

    from lab.ptxsim import Module
    k = Module(ptx_text).kernel("name")              # or .kernel() where there is one
    counts = k.launch(grid=(4,), block=(128,), args=[array, array, 17, 0.5], shared=4096)

Arrays are passed by reference and written in place; scalars are packed as the parameter's type says; a struct is bytes, or a
list of arrays, for its pointers, and bytes. An access
outside the array it started from, a misaligned access, or an instruction it does not know raises, with the PTX line.
Covers integer, float32/64, f16/bf16(x2), tf32, predicates, shuffles, votes, atomics, ldmatrix, mma.sync
(m16n8k8/k16), cp.async, barriers: what sm_80 code needs. Not wgmma, TMA, mbarrier, clusters, textures, calls.
"""
from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Args = Any  # operands, as Kernel._operand makes them: tuples that begin with their kind
Mask = Array | None  # active lanes; None: all of them
Touched = dict[tuple[str, int], Array]  # by "load" or "store" and buffer: whether each sector was
NUMBERS = "b8|b16|b32|b64|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64|f16"

U: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
S: dict[int, Any] = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
F: dict[int, Any] = {16: np.float16, 32: np.float32, 64: np.float64}
BITS = {"b8": 8, "u8": 8, "s8": 8, "b16": 16, "u16": 16, "s16": 16, "f16": 16, "bf16": 16, "b32": 32, "u32": 32, "s32": 32,
        "f32": 32, "tf32": 32, "f16x2": 32, "bf16x2": 32, "b64": 64, "u64": 64, "s64": 64, "f64": 64, "pred": 1, "b128": 128}
SHARED_WINDOW, LOCAL_WINDOW, BUFFER_SHIFT = np.uint64(1 << 60), np.uint64(1 << 61), np.uint64(40)


class PtxError(RuntimeError):
    """Raised with the PTX line that could not be executed, and why."""


# ---------------------------------------------------------------- parsing
def _split(text: str) -> list[str]:
    out, depth, cur = [], 0, ""
    for c in text:
        depth += c in "[{("
        depth -= c in "]})"
        if c == "," and not depth:
            out.append(cur.strip())
            cur = ""
        else:
            cur += c
    return out + ([cur.strip()] if cur.strip() else [])


class Instr:
    """One instruction: guard predicate, whether it is negated, opcode in its parts, operands, source."""

    __slots__ = ("args", "guard", "negate", "op", "text")

    def __init__(self, guard: str | None, negate: bool, op: list[str], args: Args, text: str):
        self.guard, self.negate, self.op, self.args, self.text = guard, negate, op, args, text


class Module:
    """One PTX module: its kernels, and its module-scope shared, constant and global symbols."""

    def __init__(self, ptx: str):
        ptx = re.sub(r"/\*.*?\*/", " ", re.sub(r"//[^\n]*", "", ptx), flags=re.S)
        ptx = re.sub(r"^\s*\.(loc|file)\b[^\n]*$", "", ptx, flags=re.M)  # ended by the line, not by a semicolon
        self.symbols: dict[str, tuple[str, int, bytes]] = {}
        self.kernels: dict[str, Kernel] = {}
        pos = 0
        entry = re.compile(r"\.entry\s+([\w$.]+)\s*\(([^)]*)\)([^{]*)\{", re.S)
        head = ptx[: m.start()] if (m := entry.search(ptx)) else ptx
        for st in head.split(";"):
            self._declare(st)
        while m := entry.search(ptx, pos):
            depth, i = 1, m.end()
            while depth:
                depth += ptx[i] == "{"
                depth -= ptx[i] == "}"
                i += 1
            self.kernels[m.group(1)] = Kernel(self, m.group(1), m.group(2), ptx[m.end(): i - 1])
            pos = i
        if not self.kernels:
            raise PtxError("no .entry in this PTX")

    def _declare(self, st: str) -> None:
        st = " ".join(st.split())
        m = re.search(r"\.(shared|global|const)\b(.*)", st)
        if not m:
            return
        t = re.search(rf"\.({NUMBERS})\s+([\w$.]+)\s*(\[\d*\])?\s*(?:=\s*(.*))?$", m.group(2))
        if not t:
            return
        size = BITS[t.group(1)] // 8
        count = int(t.group(3)[1:-1] or 0) if t.group(3) else 1
        data = b""
        if t.group(4):
            vals = [v for v in re.split(r"[{},\s]+", t.group(4)) if v]
            data = b"".join((_imm(v, t.group(1)) & ((1 << 8 * size) - 1)).to_bytes(size, "little") for v in vals)
        self.symbols[t.group(2)] = (m.group(1), size * count, data)

    def kernel(self, name: str | None = None) -> Kernel:
        if name is None and len(self.kernels) == 1:
            return next(iter(self.kernels.values()))
        hit = [k for k in self.kernels if name is not None and name in k]
        if len(hit) != 1:
            raise PtxError(f"kernel {name!r}: {len(hit)} of {sorted(self.kernels)} match")
        return self.kernels[hit[0]]


def _imm(tok: str, ty: str = "b64") -> int:
    neg = tok.startswith("-")
    t = tok.lstrip("+-")
    if t[:2] in ("0f", "0F", "0d", "0D") and re.fullmatch(r"[0-9a-fA-F]+", t[2:]):
        bits, w = int(t[2:], 16), 32 if t[1] in "fF" else 64
        return bits ^ (1 << (w - 1)) if neg else bits
    if re.search(r"[.eE]", t) and not t.lower().startswith("0x"):
        v = -float(t) if neg else float(t)
        return int(np.array(v, F[32] if ty == "f32" else F[64]).view(U[32] if ty == "f32" else U[64]))
    v = int(t.rstrip("uUlL"), 0)
    return -v if neg else v


class Pointer(NamedTuple):
    """A byte of a memory that lies on a sector's boundary."""

    memory: Array
    offset: int


class Kernel:
    """One kernel, parsed: parameters (name, type, bytes), registers, memory it declares, instructions."""

    def __init__(self, module: Module, name: str, params: str, body: str):
        self.module, self.name = module, name
        self.params: list[tuple[str, str, int]] = []  # name, type, bytes
        for p in _split(params):
            if m := re.search(r"\.param\s+(.*?)\.(\w+)\s*(?:\.ptr[^%\w$]*(?:\.\w+\s*)*(?:\d+)?\s*)?([\w$.]+)\s*(\[\d+\])?$", p):
                t = re.findall(rf"\.({NUMBERS})\b", p)[0]
                self.params.append((m.group(3), t, BITS[t] // 8 * (int(m.group(4)[1:-1]) if m.group(4) else 1)))
        self.regs: dict[str, int] = {}
        self.local: dict[str, int] = {}
        self.shared: dict[str, int] = {}
        self.code: list[Instr] = []
        self.labels: dict[str, int] = {}
        self._parse(body)

    def _parse(self, body: str) -> None:
        scopes: list[dict[str, str]] = [{}]
        uid = 0
        for m in re.finditer(r"([\w$.%]+)\s*:(?!:)|([{}])|((?:[^;{}]|\{[^{};]*\})+);", body):
            label, brace, st = m.groups()
            if label:
                self.labels[label] = len(self.code)
                continue
            if brace == "{":
                scopes.append({})
                continue
            if brace == "}":
                if len(scopes) > 1:
                    scopes.pop()
                continue
            st = " ".join(st.split())
            while lm := re.match(r"^([\w$.]+)\s*:(?!:)\s*", st):
                self.labels[lm.group(1)] = len(self.code)
                st = st[lm.end():]
            if not st or st.startswith((".pragma", ".branchtargets")):
                continue
            if st.startswith(".reg"):
                declared = re.match(r"\.reg\s*\.(\w+)\s+(.*)", st)
                assert declared
                t, names = declared.groups()
                for n in _split(names):
                    if r := re.fullmatch(r"(%?[\w$]+)<(\d+)>", n):
                        every = [f"{r.group(1)}{i}" for i in range(int(r.group(2)))]
                    else:
                        every = [n]
                    for e in every:
                        full = e
                        if len(scopes) > 1:
                            uid += 1
                            full = f"{e}@{uid}"
                            scopes[-1][e] = full
                        self.regs[full] = BITS[t]
                continue
            if st.startswith("."):
                if d := re.match(r"\.(local|shared)\b.*?\.(\w+)\s+([\w$]+)\s*\[(\d+)\]", st):
                    table = self.local if d.group(1) == "local" else self.shared
                    table[d.group(3)] = BITS[d.group(2)] // 8 * int(d.group(4))
                continue
            guard = negate = None
            if g := re.match(r"@(!?)([%\w$]+)\s+", st):
                guard, negate = self._name(g.group(2), scopes), bool(g.group(1))
                body_st = st[g.end():]
            else:
                body_st = st
            if not (opcode := re.match(r"[\w.:]+", body_st)):
                raise PtxError(f"statement {st}")
            args = [self._operand(a, scopes) for a in _split(body_st[opcode.end():])]
            self.code.append(Instr(guard, bool(negate), opcode.group(0).split("."), args, st))

    def _name(self, n: str, scopes: list[dict[str, str]]) -> str:
        for s in reversed(scopes):
            if n in s:
                return s[n]
        return n

    def _operand(self, t: str, scopes: list[dict[str, str]]) -> Args:
        if t.startswith("{"):
            return ("vec", [self._operand(x, scopes) for x in _split(t[1:-1])])
        if t.startswith("["):
            m = re.fullmatch(r"\[\s*([%\w$.]+)\s*(?:([+-])\s*([+-]?\w+))?\s*\]", t)
            if not m:
                raise PtxError(f"address {t}")
            off = int(m.group(3), 0) if m.group(3) else 0
            return ("mem", self._operand(m.group(1), scopes), -off if m.group(2) == "-" else off)
        if "|" in t:
            return ("pair", *[self._operand(x.strip(), scopes) for x in t.split("|")])
        if t.startswith("!"):
            return ("not", self._operand(t[1:], scopes))
        n = self._name(t, scopes)
        if n in self.regs:
            return ("reg", n)
        if t.startswith("%"):
            return ("sreg", t[1:])
        if re.match(r"[+-]?\d", t):
            return ("imm", t)
        if t == "_":
            return ("sink",)
        return ("sym", t)

    def launch(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared: int = 0,
               chunk: int = 1 << 16) -> Counter[str]:
        """Execute the whole grid. args: NumPy arrays (by reference) and Python scalars, in parameter order.

        A structure is bytes, or a tuple of its members in order: arrays for pointers, or `Pointer`, bytes with their padding for
        the rest.
        """
        grid, block = (tuple(list(map(int, d)) + [1] * (3 - len(d))) for d in (grid, block))
        if len(args) < len(self.params):  # Triton appends scratch pointers that the kernel does not touch
            args = list(args) + [0] * (len(self.params) - len(args))
        n, ctas = math.prod(block), math.prod(grid)
        total: Counter[str] = Counter()
        touched: Touched = {}
        per = max(1, chunk // n)
        with np.errstate(all="ignore"):
            for first in range(0, ctas, per):
                total += _Run(self, grid, block, args, shared, first, min(per, ctas - first), touched).go()
        for (what, _), sectors in touched.items():
            total[f"distinct_{what}_sectors"] += int(sectors.sum())
        return total


# ---------------------------------------------------------------- execution
def _range(ty: str) -> tuple[int, int]:
    """The least and the greatest integer of a type."""
    w = BITS[ty]
    return (-(2 ** (w - 1)), 2 ** (w - 1) - 1) if ty[0] == "s" else (0, 2**w - 1)


def _bf2f(b: Array) -> Array:
    return (b.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _f2bf(f: Array) -> Array:
    u = np.ascontiguousarray(f, np.float32).view(np.uint32)
    r = (u + np.uint32(0x7FFF) + ((u >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(f), np.uint32(0x7FFF), r).astype(np.uint16)


def _fma(a: Array, b: Array, c: Array, w: int) -> Array:
    """Correctly rounded fused multiply-add: the float32 product is exact in float64; the sum is rounded to odd there.

    Rounded twice for float64 under Python < 3.13, which has no math.fma.
    """
    if w == 64:
        if not hasattr(math, "fma"):
            return a * b + c
        return np.array([math.fma(x, y, z) for x, y, z in zip(*np.broadcast_arrays(a, b, c), strict=True)])
    p, c64 = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    s = p + c64
    bb = s - p
    err = (p - (s - bb)) + (c64 - bb)
    bits = s.view(np.int64)
    inexact = (err != 0) & np.isfinite(s) & ((bits & 1) == 0)
    toward = np.where((err > 0) == (s > 0), 1, -1)
    return np.where(inexact, (bits + toward).view(np.float64), s).astype(F[w])


def _atomic(name: str, cur: Any, x: Any, y: Any) -> Any:
    """What an atomic leaves in memory where `cur` was; y is what compare-and-swap writes."""
    if name == "cas":
        return y if cur == x else cur
    if name == "inc":
        return 0 if cur >= x else cur + 1
    if name == "dec":
        return x if cur == 0 or cur > x else cur - 1
    return {"add": lambda: cur + x, "min": lambda: min(cur, x), "max": lambda: max(cur, x), "and": lambda: cur & x,
            "or": lambda: cur | x, "xor": lambda: cur ^ x, "exch": lambda: x}[name]()


class _Run:
    """The blocks first … first + ctas − 1 of one launch: registers, memory, and the count of what they did."""

    def __init__(self, k: Kernel, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], shared: int, first: int,
                 ctas: int, touched: Touched):
        self.k, self.nb, self.touched = k, math.prod(block), touched
        self.n = n = self.nb * ctas
        lane = np.arange(n, dtype=np.uint64)
        self.cta, self.tid = lane // np.uint64(self.nb), lane % np.uint64(self.nb)
        self.warp = (self.cta * np.uint64((self.nb + 31) // 32) + self.tid // np.uint64(32)).astype(np.int64)
        self.warps = int(self.warp[-1]) + 1
        self.count: Counter[str] = Counter()
        self.r: dict[str, Array] = {}
        self.every = np.ones(n, bool)
        cid = self.cta + np.uint64(first)
        lid = self.tid % np.uint64(32)
        one = np.uint64(1)
        self.s: dict[str, Any] = {
            "laneid": lid, "warpid": self.tid // np.uint64(32), "nwarpid": (self.nb + 31) // 32, "smid": 0, "clock": 0,
            "clock64": 0, "lanemask_eq": one << lid, "lanemask_lt": (one << lid) - one, "dynamic_smem_size": shared,
            "globaltimer": 0, "nsmid": 1, "lanemask_le": (one << (lid + one)) - one, "gridid": 0, "cluster_ctarank": 0,
            "cluster_ctaid.x": 0}
        for i, d in enumerate("xyz"):
            self.s[f"tid.{d}"] = (self.tid // np.uint64(math.prod(block[:i]))) % np.uint64(block[i])
            self.s[f"ctaid.{d}"] = (cid // np.uint64(math.prod(grid[:i]))) % np.uint64(grid[i])
            self.s[f"ntid.{d}"], self.s[f"nctaid.{d}"] = block[i], grid[i]
        # memory: buffers by number, shared a row a CTA, local a row a lane, parameters one row
        self.buffers: list[Array] = [np.zeros(0, np.uint8)]
        self.addresses: dict[int, int] = {}
        self.param = bytearray()
        self.sym: dict[str, tuple[str, int]] = {}
        for (name, ty, size), a in zip(k.params, args, strict=True):
            while len(self.param) % min(size, 8):
                self.param += b"\0"
            self.sym[name] = ("param", len(self.param))
            if isinstance(a, np.ndarray):
                raw = self._buffer(name, a)
            elif isinstance(a, tuple):
                members = (v if isinstance(v, bytes) else self._address(name, v).to_bytes(8, "little") for v in a)
                self.param += b"".join(members).ljust(size, b"\0")
                continue
            elif isinstance(a, (bytes, bytearray)):
                self.param += bytes(a).ljust(size, b"\0")
                continue
            elif ty in ("f32", "f64") or isinstance(a, float):
                w = 64 if size == 8 else 32
                raw = int(np.array(a, F[w]).view(U[w]))
            else:
                raw = int(a)
            self.param += (raw & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        self.param_mem = np.frombuffer(bytes(self.param) or b"\0", np.uint8)
        top = 0
        dyn = []
        for name, (space, size, data) in k.module.symbols.items():
            if space == "shared":
                if size:
                    top = (top + 15) // 16 * 16
                    self.sym[name] = ("shared", top)
                    top += size
                else:
                    dyn.append(name)
            else:
                self.buffers.append(np.frombuffer(bytearray(data.ljust(max(size, len(data), 1), b"\0")), np.uint8))
                self.sym[name] = ("global", (len(self.buffers) - 1) << int(BUFFER_SHIFT))
        for name, size in k.shared.items():
            top = (top + 15) // 16 * 16
            self.sym[name] = ("shared", top)
            top += size
        top = (top + 15) // 16 * 16
        for name in dyn:
            self.sym[name] = ("shared", top)
        self.smem = np.full((ctas, max(top + shared, 1)), 0xFF, np.uint8)  # NaNs: unwritten shared memory shows
        self.lmem = np.zeros((n, max(sum((v + 15) // 16 * 16 for v in k.local.values()), 1)), np.uint8)
        off = 0
        for name, size in k.local.items():
            self.sym[name] = ("local", off)
            off += (size + 15) // 16 * 16

    def _address(self, name: str, to: Array | Pointer) -> int:
        """Of an array, or of a byte in memory that several pointers lead into."""
        if isinstance(to, np.ndarray):
            return self._buffer(name, to)
        if id(to.memory) not in self.addresses:
            self.addresses[id(to.memory)] = self._buffer(name, to.memory)
        return self.addresses[id(to.memory)] + to.offset

    def _buffer(self, name: str, array: Array) -> int:
        """The address of an array, which from now on can be accessed."""
        if not array.flags.c_contiguous:
            raise PtxError(f"parameter {name}: array must be contiguous")
        self.buffers.append(array.reshape(-1).view(np.uint8))
        return (len(self.buffers) - 1) << int(BUFFER_SHIFT)

    # -- operands
    def raw(self, a: Args, w: int, ty: str = "b64") -> Array:
        """Operand as unsigned bits of width w, one per lane."""
        kind = a[0]
        if kind == "reg":
            v = self._reg(a[1])
            return v if v.dtype == U.get(w) else v.astype(U[w])
        if kind == "imm":
            return np.broadcast_to(np.array(_imm(a[1], ty) & ((1 << w) - 1), U[w]), (self.n,))
        if kind == "sreg":
            if a[1] not in self.s:
                raise PtxError(f"special register %{a[1]}")
            return np.broadcast_to(np.asarray(self.s[a[1]]).astype(U[w]), (self.n,))
        if kind == "sym":
            off = self.sym[a[1]][1]
            return np.broadcast_to(np.array(off & ((1 << w) - 1), U[w]), (self.n,))
        raise PtxError(f"operand {a}")

    def _reg(self, name: str) -> Array:
        v = self.r.get(name)
        if v is None:
            w = self.k.regs[name]
            v = self.r[name] = np.zeros(self.n, bool if w == 1 else U.get(w, np.uint64))
        return v

    def pred(self, a: Args) -> Array:
        if a[0] == "not":
            return ~self.pred(a[1])
        if a[0] == "imm":
            return np.full(self.n, bool(int(a[1], 0)))
        return self._reg(a[1])

    def val(self, a: Args, ty: str) -> Array:
        w = BITS[ty]
        if ty == "pred":
            return self.pred(a)
        b = self.raw(a, w, ty)
        if ty == "bf16":
            return _bf2f(b)
        if ty[0] == "f" and ty != "f16x2":
            return np.ascontiguousarray(b).view(F[w])
        if ty == "tf32":
            return np.ascontiguousarray(b & np.uint32(0xFFFFE000)).view(np.float32)
        if ty[0] == "s":
            return np.ascontiguousarray(b).view(S[w])
        return b

    def put(self, a: Args, v: Any, ty: str, m: Mask) -> None:
        if a[0] == "sink":
            return
        if a[0] == "pair":
            a = a[1]
        name = a[1]
        if ty == "pred":
            bits = np.asarray(v, bool)
        elif ty == "bf16":
            bits = _f2bf(np.asarray(v, np.float32))
        elif (ty[0] == "f" and ty != "f16x2") or ty == "tf32":
            bits = np.ascontiguousarray(v, F[BITS[ty]]).view(U[BITS[ty]])
        elif ty[0] == "s":
            bits = np.ascontiguousarray(np.asarray(v).astype(S[BITS[ty]])).view(U[BITS[ty]])
        else:
            bits = np.asarray(v).astype(U[BITS[ty]])
        r = self._reg(name)
        if r.dtype != bool and r.itemsize * 8 > BITS[ty] and ty[0] == "s":
            bits = bits.view(S[BITS[ty]]).astype(S[r.itemsize * 8]).view(r.dtype)
        if m is None:
            r[:] = bits
        else:
            r[m] = bits[m] if bits.ndim else bits

    # -- memory
    def address(self, a: Args, space: str) -> tuple[str, Array]:
        base = a[1]
        if base[0] == "sym":
            sp, off = self.sym[base[1]]
            return space or sp, np.full(self.n, off + a[2], np.int64).view(np.uint64)
        w = 64 if base[0] == "imm" else self.k.regs.get(base[1], 64)
        ad = self.raw(base, w).astype(np.uint64) + np.uint64(a[2] & (2**64 - 1))
        return space, ad if w == 64 else ad & np.uint64(0xFFFFFFFF)

    def locate(self, space: str, ad: Array, m: Array) -> tuple[str, Array]:
        """Resolve generic addresses: returns the space all active lanes are in, and offsets."""
        if not space:
            x = ad[m]
            if x.size and (x >= LOCAL_WINDOW).all():
                return "local", ad - LOCAL_WINDOW
            if x.size and (x >= SHARED_WINDOW).all():
                return "shared", ad - SHARED_WINDOW
            return "global", ad
        if space == "shared":
            return "shared", np.where(ad >= SHARED_WINDOW, ad - SHARED_WINDOW, ad)
        if space == "local":
            return "local", np.where(ad >= LOCAL_WINDOW, ad - LOCAL_WINDOW, ad)
        return space, ad

    def rows(self, space: str, ad: Array, size: int, m: Array) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Yield (lanes, 2-D byte view, row per lane, column per lane) for the active lanes."""
        lanes = np.flatnonzero(m)
        if not lanes.size:
            return
        x = ad[lanes]
        if (x % np.uint64(size)).any():
            raise PtxError(f"misaligned {size}-byte access in {space}")
        if space == "shared":
            yield lanes, self.smem, self.cta[lanes].astype(np.int64), x.astype(np.int64)
        elif space == "local":
            yield lanes, self.lmem, lanes, x.astype(np.int64)
        elif space == "param":
            yield lanes, self.param_mem[None], np.zeros(lanes.size, np.int64), x.astype(np.int64)
        else:
            which = (x >> BUFFER_SHIFT).astype(np.int64)
            for b in np.unique(which):
                sel = which == b
                if not 0 < b < len(self.buffers):
                    raise PtxError(f"address {int(x[sel][0]):#x} is in no array")
                column = (x[sel] & np.uint64((1 << 40) - 1)).astype(np.int64)
                yield lanes[sel], self.buffers[b][None], np.zeros(column.size, np.int64), column

    def bounds(self, mem: Array, col: Array, size: int, space: str) -> None:
        if col.size and (col.min() < 0 or col.max() + size > mem.shape[1]):
            bad = int(col.max()) if col.max() + size > mem.shape[1] else int(col.min())
            raise PtxError(f"{space} access at byte {bad} of {mem.shape[1]}")

    def load(self, space: str, ad: Array, size: int, m: Array) -> Array:
        out = np.zeros((self.n, size), np.uint8)
        for lanes, mem, row, col in self.rows(space, ad, size, m):
            self.bounds(mem, col, size, space)
            out[lanes] = mem[row[:, None], col[:, None] + np.arange(size)]
        return out

    def store(self, space: str, ad: Array, data: Array, m: Array) -> None:
        size = data.shape[1]
        for lanes, mem, row, col in self.rows(space, ad, size, m):
            self.bounds(mem, col, size, space)
            if not mem.flags.writeable:
                raise PtxError(f"store to read-only {space} memory")
            mem[row[:, None], col[:, None] + np.arange(size)] = data[lanes]

    def account(self, what: str, space: str, ad: Array, size: int, m: Array) -> None:
        lanes = np.flatnonzero(m)
        if not lanes.size or space not in ("global", "shared"):
            return
        warp, x = self.warp[lanes], ad[lanes].astype(np.int64)
        if space == "global":
            sectors = np.unique(np.concatenate([(warp << 48) + ((x + o) >> 5) for o in range(0, size, 32)]))
            self.count[f"global_{what}_sectors"] += len(sectors)
            self._touch(what, sectors & ((1 << 48) - 1))
            self.count[f"global_{what}_bytes"] += lanes.size * size
            self.count[f"global_{what}_requests"] += self._warps(m)
        else:
            phase = (self.tid[lanes].astype(np.int64) % 32) // (128 // max(size, 4))  # 8 and 16 bytes go in parts of a warp
            turn = (warp * 4 + phase) << 32
            words = np.unique(np.concatenate([turn + ((x + o) >> 2) for o in range(0, size, 4)]))
            turns = int(words[-1] >> 32) + 1
            worst = np.bincount((words >> 32) * 32 + (words & 31), minlength=32 * turns).reshape(-1, 32).max(1)
            self.count[f"shared_{what}_wavefronts"] += int(worst.sum())
            self.count[f"shared_{what}_conflicts"] += int(worst.sum() - np.count_nonzero(worst))

    def _touch(self, what: str, sectors: Array) -> None:
        buffers = sectors >> (int(BUFFER_SHIFT) - 5)
        for b in np.unique(buffers):
            if 0 < b < len(self.buffers):  # else the access itself raises
                of_buffer = self.touched.setdefault((what, int(b)), np.zeros(-(-len(self.buffers[b]) // 32), bool))
                inside = sectors[buffers == b] - (b << (int(BUFFER_SHIFT) - 5))
                of_buffer[inside[inside < len(of_buffer)]] = True

    # -- run
    def _warps(self, m: Array) -> int:
        """How many have a lane in m."""
        return int(np.count_nonzero(np.bincount(self.warp, m)))

    def go(self) -> Counter[str]:
        code, n = self.k.code, self.n
        pc, alive = np.zeros(n, np.int64), np.ones(n, bool)
        uniform: int | None = 0  # program counter while all lanes agree, else None
        while True:
            if uniform is not None:
                if uniform >= len(code):
                    break
                at, m = uniform, None
            else:
                live = pc[alive]
                if not live.size:
                    break
                at = int(live.min())
                m = alive & (pc == at)
                if m.all():
                    uniform, m = at, None
            ins = code[at] if at < len(code) else None
            if ins is None:
                break
            g = m
            if ins.guard is not None:
                p = self._reg(ins.guard)
                p = ~p if ins.negate else p
                g = p.copy() if m is None else (m & p)
                if g.all():
                    g = None
            base = ins.op[0]
            if g is not None and not g.any():
                if m is None:
                    uniform = at + 1
                else:
                    pc[m] = at + 1
                continue
            self.count["instructions"] += self.warps if g is None else self._warps(g)
            if base in ("bra", "ret", "exit", "trap"):
                if base == "trap":
                    raise PtxError(f"trap executed: {ins.text}")
                to = self.k.labels[ins.args[-1][1]] if base == "bra" else len(code)
                if m is None and g is None:
                    uniform = to
                    continue
                if uniform is not None:
                    pc[:] = at
                    uniform, m = None, np.ones(n, bool) if m is None else m
                    self.count["divergent_branches"] += 1
                g = m if g is None else g
                pc[m] = at + 1
                if base == "bra":
                    pc[g] = to
                else:
                    alive[g] = False
                continue
            try:
                self.execute(ins, g)
            except PtxError as e:
                raise PtxError(f"{e} in `{ins.text}` of {self.k.name}") from None
            except (KeyError, IndexError, TypeError, ValueError) as e:
                raise PtxError(f"cannot execute `{ins.text}` of {self.k.name}: {type(e).__name__} {e}") from e
            if m is None:
                uniform = at + 1
            else:
                pc[m] = at + 1
        return self.count

    def execute(self, ins: Instr, m: Mask) -> None:
        o, a = ins.op, ins.args
        base, ty = o[0], o[-1]
        mm = self.every if m is None else m
        fn = getattr(self, "op_" + base, None)
        if fn is not None:
            fn(o, a, ty, m, mm)
            return
        if base not in ("membar", "fence", "prefetch", "nanosleep", "griddepcontrol", "pmevent", "setmaxnreg", "discard",
                        "applypriority"):
            raise PtxError("instruction not supported")

    # data movement
    def op_mov(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        if ty == "pred":
            return self.put(a[0], self.pred(a[1]), "pred", m)
        w = BITS[ty]
        if a[0][0] == "vec":
            parts, src = a[0][1], self.raw(a[1], w)
            e = w // len(parts)
            for i, p in enumerate(parts):
                self.put(p, (src >> np.array(i * e, src.dtype)).astype(U[e]), f"b{e}", m)
        elif a[1][0] == "vec":
            parts = a[1][1]
            e = w // len(parts)
            v = sum((self.raw(p, e).astype(U[w]) << np.array(i * e, U[w]) for i, p in enumerate(parts)), np.zeros(self.n, U[w]))
            self.put(a[0], v, f"b{w}", m)
        else:
            self.put(a[0], self.raw(a[1], w, ty), f"b{w}", m)  # of a symbol its offset; cvta makes that a generic address

    def op_cvta(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        v = self.raw(a[1], 64)
        win = SHARED_WINDOW if "shared" in o else LOCAL_WINDOW if "local" in o else np.uint64(0)
        self.put(a[0], np.where(v >= win, v - win, v) if "to" in o else v + win, "u64", m)

    def _space(self, o: list[str]) -> str:
        for x in o:
            s = x.split("::")[0]
            if s in ("global", "shared", "local", "param", "const"):
                return "global" if s == "const" else s
        return ""

    def op_ld(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        vec = next((int(x[1:]) for x in o if re.fullmatch(r"v[248]", x)), 1)
        size = BITS[ty] // 8
        space, ad = self.address(a[1], self._space(o))
        space, ad = self.locate(space, ad, mm)
        self.account("load", space, ad, size * vec, mm)
        raw = self.load(space, ad, size * vec, mm)
        for i, d in enumerate(a[0][1] if a[0][0] == "vec" else [a[0]]):
            part = np.ascontiguousarray(raw[:, i * size:(i + 1) * size])
            v = part.view(U[8 * size]).reshape(-1)
            t = f"{'s' if ty[0] == 's' else 'b'}{8 * size}"
            self.put(d, v.view(S[8 * size]) if t[0] == "s" else v, t, m)

    op_ldu = op_ld

    def op_st(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        size = BITS[ty] // 8
        src = a[1][1] if a[1][0] == "vec" else [a[1]]
        space, ad = self.address(a[0], self._space(o))
        space, ad = self.locate(space, ad, mm)
        words = [np.ascontiguousarray(self.raw(s, 8 * size, ty)) for s in src]
        data = np.concatenate([word.view(np.uint8).reshape(self.n, size) for word in words], 1)
        self.account("store", space, ad, data.shape[1], mm)
        self.store(space, ad, data, mm)

    def op_cp(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:  # cp.async and its groups: performed at once
        if o[1] != "async" or o[2] in ("commit_group", "wait_group", "wait_all", "mbarrier"):
            if o[1] == "async" and o[2] != "mbarrier" and "bulk" not in o:
                return
            raise PtxError("instruction not supported")
        if "bulk" in o:
            raise PtxError("instruction not supported")
        size = int(a[2][1], 0)
        n_src = self.raw(a[3], 32).astype(np.int64) if len(a) > 3 else np.full(self.n, size)
        _, dst = self.address(a[0], "shared")
        _, src = self.address(a[1], "global")
        data = np.zeros((self.n, size), np.uint8)
        for k in np.unique(n_src[mm]):
            sel = mm & (n_src == k)
            if k:
                self.account("load", "global", src, int(k), sel)
                step = int(k & -k)
                for off in range(0, int(k), step):
                    data[sel, off:off + step] = self.load("global", src + np.uint64(off), step, sel)[sel]
        self.account("store", "shared", dst, size, mm)
        self.store("shared", self.locate("shared", dst, mm)[1], data, mm)

    # comparison and selection
    def op_setp(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        x, y = self.val(a[1], ty), self.val(a[2], ty)
        cmp = o[1]
        flt = ty[0] == "f" or ty == "bf16"
        base = {"equ": "eq", "neu": "ne", "ltu": "lt", "leu": "le", "gtu": "gt", "geu": "ge", "lo": "lt", "ls": "le", "hi": "gt",
                "hs": "ge"}.get(cmp, cmp)
        if cmp in ("num", "nan"):
            res = np.isnan(x) | np.isnan(y)
            res = ~res if cmp == "num" else res
        else:
            res = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
                   "ge": np.greater_equal}[base](x, y)
            if flt:
                un = np.isnan(x) | np.isnan(y)
                res = (res | un) if cmp.endswith("u") else (res & ~un)
        comb = next((b for b in o[2:-1] if b in ("and", "or", "xor")), None)
        p, q = (a[0][1], a[0][2]) if a[0][0] == "pair" else (a[0], None)
        other = ~res
        if comb:
            f = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[comb]
            c = self.pred(a[3])
            res, other = f(res, c), f(other, c)
        if q is not None:
            self.put(q, other, "pred", m)
        self.put(p, res, "pred", m)

    def op_selp(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        w = BITS[ty]
        self.put(a[0], np.where(self.pred(a[3]), self.raw(a[1], w, ty), self.raw(a[2], w, ty)), f"b{w}", m)

    # conversion
    def op_cvt(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        dt, st = o[-2], o[-1]
        if dt in ("bf16x2", "f16x2"):
            hi, lo = self.val(a[1], "f32"), self.val(a[2], "f32")
            enc = _f2bf if dt == "bf16x2" else lambda v: np.ascontiguousarray(v.astype(np.float16)).view(np.uint16)
            if "relu" in o:
                hi, lo = np.maximum(hi, 0), np.maximum(lo, 0)
            return self.put(a[0], enc(lo).astype(np.uint32) | (enc(hi).astype(np.uint32) << np.uint32(16)), "b32", m)
        v: Any = self.val(a[1], st)
        if dt == "tf32":
            b = np.ascontiguousarray(v, np.float32).view(np.uint32)
            b = (b + np.uint32(0x1000)) & np.uint32(0xFFFFE000) if "rna" in o else b & np.uint32(0xFFFFE000)
            return self.put(a[0], b, "b32", m)
        sf, df = st[0] == "f" or st == "bf16", dt[0] == "f" or dt == "bf16"
        rnd = next((x for x in o if x in ("rni", "rzi", "rmi", "rpi")), None)
        if sf and rnd:
            v = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[rnd](v)
        if sf and not df:
            least, most = _range(dt)
            v64 = v.astype(np.float64)
            out = np.zeros(self.n, S[64] if dt[0] == "s" else U[64])
            ok = np.isfinite(v64) & (v64 > least) & (v64 < most)
            out[ok] = v64[ok].astype(out.dtype)
            out[v64 >= most] = most
            out[v64 <= least] = least
            return self.put(a[0], out, dt, m)
        if df:
            if "sat" in o:
                v = np.where(np.isnan(v), 0, np.clip(v, 0, 1))
            v = v.astype(np.float32 if dt == "bf16" else F[BITS[dt]])
        elif "sat" in o:
            least, most = _range(dt)
            v = np.clip(v.astype(np.int64), least, most)
        return self.put(a[0], v, dt, m)

    # arithmetic
    def _packed(self, f: Callable[..., Any], a: Args, ty: str, m: Mask, count: int) -> None:
        half = ty[:-2]
        outs = []
        raws = [self.raw(x, 32) for x in a[1:1 + count]]
        for sh in (0, 16):
            parts = [(r >> np.uint32(sh)).astype(np.uint16) for r in raws]
            vals = [_bf2f(p) if half == "bf16" else p.view(np.float16).astype(np.float32) for p in parts]
            r = f(*vals)
            enc = _f2bf(r) if half == "bf16" else np.ascontiguousarray(r.astype(np.float16)).view(np.uint16)
            outs.append(enc.astype(np.uint32) << np.uint32(sh))
        self.put(a[0], outs[0] | outs[1], "b32", m)

    def _binary(self, o: list[str], a: Args, ty: str, m: Mask, f: Callable[..., Any]) -> None:
        if ty in ("f16x2", "bf16x2"):
            return self._packed(f, a, ty, m, 2)
        x, y = self.val(a[1], ty), self.val(a[2], ty)
        if ty == "f16":
            return self.put(a[0], f(x.astype(np.float32), y.astype(np.float32)), ty, m)
        v = f(x, y)
        if "sat" in o and ty[0] == "f":
            v = np.where(np.isnan(v), 0, np.clip(v, 0, 1))
        return self.put(a[0], v, ty, m)

    def op_add(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._binary(o, a, ty, m, lambda x, y: x + y)

    def op_sub(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._binary(o, a, ty, m, lambda x, y: x - y)

    def op_min(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._binary(o, a, ty, m, np.minimum if "NaN" in o else np.fmin if ty[0] == "f" else np.minimum)

    def op_max(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._binary(o, a, ty, m, np.maximum if "NaN" in o else np.fmax if ty[0] == "f" else np.maximum)

    def _wide(self, x: Array, ty: str) -> Array:
        return x.astype((S if ty[0] == "s" else U)[2 * BITS[ty]])

    def _product(self, o: list[str], a: Args, ty: str) -> tuple[Array, str]:
        x, y = self.val(a[1], ty), self.val(a[2], ty)
        if ty[0] == "f" or ty == "bf16":
            return x * y, ty
        if "wide" in o:
            return self._wide(x, ty) * self._wide(y, ty), ty[0] + str(2 * BITS[ty])
        if "hi" in o:
            if BITS[ty] == 64:
                v = np.array([(int(p) * int(q)) >> 64 for p, q in zip(x, y, strict=True)], object)
                return np.array([int(t) & (2**64 - 1) for t in v], np.uint64), "b64"
            p = self._wide(x, ty) * self._wide(y, ty)
            return (p >> np.array(BITS[ty], p.dtype)).astype((S if ty[0] == "s" else U)[BITS[ty]]), ty
        return x * y, ty

    def op_mul(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        if ty in ("f16x2", "bf16x2"):
            return self._packed(lambda x, y: x * y, a, ty, m, 2)
        v, t = self._product(o, a, ty)
        return self.put(a[0], v, t, m)

    op_mul24 = op_mul

    def op_mad(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        if ty[0] == "f":
            return self.op_fma(o, a, ty, m, mm)
        v, t = self._product(o, a, ty)
        return self.put(a[0], v + self.val(a[3], t), t, m)

    def op_fma(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        if ty in ("f16x2", "bf16x2"):
            return self._packed(lambda x, y, z: (x.astype(np.float64) * y + z).astype(np.float32), a, ty, m, 3)
        x, y, z = (self.val(v, ty) for v in a[1:4])
        if ty in ("f16", "bf16"):
            return self.put(a[0], (x.astype(np.float64) * y + z).astype(np.float32), ty, m)
        v = _fma(x, y, z, BITS[ty])
        if "sat" in o:
            v = np.clip(v, 0, 1)
        return self.put(a[0], v, ty, m)

    def op_div(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        x, y = self.val(a[1], ty), self.val(a[2], ty)
        if ty[0] == "f":
            return self.put(a[0], x / y, ty, m)
        ok = np.where(y == 0, 1, y)
        q = x // ok
        if ty[0] == "s":
            q = q + (((x % ok) != 0) & ((x < 0) != (ok < 0))).astype(q.dtype)
        return self.put(a[0], np.where(y == 0, -1, q).astype(q.dtype), ty, m)

    def op_rem(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        x, y = self.val(a[1], ty), self.val(a[2], ty)
        return self.put(a[0], np.fmod(x, np.where(y == 0, 1, y)), ty, m)

    def _unary(self, a: Args, ty: str, m: Mask, f: Callable[..., Any]) -> None:
        if ty in ("f16x2", "bf16x2"):
            return self._packed(f, a, ty, m, 1)
        x = self.val(a[1], ty)
        return self.put(a[0], f(x.astype(np.float32) if ty == "f16" else x), ty, m)

    def op_abs(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._unary(a, ty, m, np.abs)

    def op_neg(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._unary(a, ty, m, np.negative)

    def op_sqrt(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._unary(a, ty, m, np.sqrt)

    def op_rsqrt(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._unary(a, ty, m, lambda x: (1 / np.sqrt(x.astype(np.float64))).astype(x.dtype))

    def op_rcp(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._unary(a, ty, m, lambda x: (1 / x).astype(x.dtype))

    def op_ex2(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._unary(a, ty, m, np.exp2)

    def op_lg2(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._unary(a, ty, m, np.log2)

    def op_sin(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._unary(a, ty, m, np.sin)

    def op_cos(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._unary(a, ty, m, np.cos)

    def op_tanh(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._unary(a, ty, m, np.tanh)

    def op_copysign(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self.put(a[0], np.copysign(self.val(a[2], ty), self.val(a[1], ty)), ty, m)

    def op_testp(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        x = self.val(a[1], ty)
        f: dict[str, Callable[..., Any]] = {"finite": np.isfinite, "infinite": np.isinf, "notanumber": np.isnan,
                                            "number": lambda v: ~np.isnan(v)}
        self.put(a[0], f[o[1]](x), "pred", m)

    # bits
    def _logic(self, a: Args, ty: str, m: Mask, f: Callable[..., Any]) -> None:
        if ty == "pred":
            return self.put(a[0], f(self.pred(a[1]), self.pred(a[2])), "pred", m)
        w = BITS[ty]
        return self.put(a[0], f(self.raw(a[1], w), self.raw(a[2], w)), f"b{w}", m)

    def op_and(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._logic(a, ty, m, np.bitwise_and)

    def op_or(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._logic(a, ty, m, np.bitwise_or)

    def op_xor(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._logic(a, ty, m, np.bitwise_xor)

    def op_not(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        if ty == "pred":
            self.put(a[0], ~self.pred(a[1]), "pred", m)
        else:
            self.put(a[0], ~self.raw(a[1], BITS[ty]), f"b{BITS[ty]}", m)

    def op_lop3(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        x, y, z = (self.raw(v, 32) for v in a[1:4])
        lut, r = int(a[4][1], 0), np.zeros(self.n, np.uint32)
        for i in range(8):
            if lut >> i & 1:
                r |= (x if i & 4 else ~x) & (y if i & 2 else ~y) & (z if i & 1 else ~z)
        self.put(a[0], r, "b32", m)

    def op_shl(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        w = BITS[ty]
        x, s = self.raw(a[1], w), self.raw(a[2], 32)
        self.put(a[0], np.where(s >= w, np.array(0, U[w]), x << np.minimum(s, w - 1).astype(U[w])), f"b{w}", m)

    def op_shr(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        w = BITS[ty]
        s = self.raw(a[2], 32)
        if ty[0] == "s":
            x = self.val(a[1], ty)
            return self.put(a[0], x >> np.minimum(s, w - 1).astype(S[w]), ty, m)
        x = self.raw(a[1], w)
        return self.put(a[0], np.where(s >= w, np.array(0, U[w]), x >> np.minimum(s, w - 1).astype(U[w])), f"b{w}", m)

    def op_shf(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        lo, hi, s = (self.raw(v, 32).astype(np.uint64) for v in a[1:4])
        s = np.minimum(s, np.uint64(32)) if "clamp" in o else s & np.uint64(31)
        v = lo | (hi << np.uint64(32))
        self.put(a[0], ((v << s) >> np.uint64(32)) if o[1] == "l" else (v >> s), "b32", m)

    def op_popc(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self.put(a[0], np.bitwise_count(self.raw(a[1], BITS[ty])), "u32", m)

    def op_clz(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        w, x = BITS[ty], self.raw(a[1], BITS[ty]).copy()
        n = np.zeros(self.n, np.uint32)
        for i in range(w):
            n += (x >> np.array(w - 1 - i, x.dtype) == 0).astype(np.uint32)
        self.put(a[0], n, "u32", m)

    def op_brev(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        w, x = BITS[ty], self.raw(a[1], BITS[ty])
        r = np.zeros(self.n, U[w])
        for i in range(w):
            r |= ((x >> np.array(i, x.dtype)) & np.array(1, x.dtype)) << np.array(w - 1 - i, x.dtype)
        self.put(a[0], r, f"b{w}", m)

    def op_bfe(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        w = BITS[ty]
        x, p, ln = self.raw(a[1], w), self.raw(a[2], 32) & np.uint32(255), self.raw(a[3], 32) & np.uint32(255)
        out = np.zeros(self.n, U[w])
        for b in range(w):
            src = np.minimum(p.astype(np.int64) + b, w - 1)
            top = np.minimum(p.astype(np.int64) + ln - 1, w - 1)
            bit = (x >> src.astype(U[w])) & np.array(1, U[w])
            sign = (x >> np.maximum(top, 0).astype(U[w])) & np.array(1, U[w]) if ty[0] == "s" else np.zeros(self.n, U[w])
            beyond = np.where(ln > 0, sign, 0).astype(U[w])
            out |= np.where(b < ln, np.where(p + b < w, bit, sign), beyond).astype(U[w]) << np.array(b, U[w])
        self.put(a[0], out, f"b{w}", m)

    def op_bfi(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        w = BITS[ty]
        x, y = self.raw(a[1], w), self.raw(a[2], w)
        p, ln = self.raw(a[3], 32) & np.uint32(255), self.raw(a[4], 32) & np.uint32(255)
        one, full = np.array(1, U[w]), np.array(2**w - 1, U[w])
        mask = np.where(ln >= w, full, (one << np.minimum(ln, w - 1).astype(U[w])) - one)
        pp = np.minimum(p, w - 1).astype(U[w])
        mask = np.where(p >= w, np.array(0, U[w]), mask << pp)
        self.put(a[0], (y & ~mask) | ((x << pp) & mask), f"b{w}", m)

    def op_prmt(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        if len(o) > 2:
            raise PtxError("prmt mode not supported")
        v = self.raw(a[1], 32).astype(np.uint64) | (self.raw(a[2], 32).astype(np.uint64) << np.uint64(32))
        c = self.raw(a[3], 32)
        r = np.zeros(self.n, np.uint32)
        for i in range(4):
            sel = (c >> np.uint32(4 * i)) & np.uint32(15)
            byte = ((v >> ((sel & np.uint32(7)).astype(np.uint64) * np.uint64(8))) & np.uint64(255)).astype(np.uint32)
            byte = np.where(sel & np.uint32(8), np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0)), byte)
            r |= byte.astype(np.uint32) << np.uint32(8 * i)
        self.put(a[0], r, "b32", m)

    # warps
    def op_shfl(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        mode = o[2]
        x, b, c = self.raw(a[1], 32), self.raw(a[2], 32).astype(np.int64), self.raw(a[3], 32).astype(np.int64)
        lane = (self.tid % np.uint64(32)).astype(np.int64)
        seg, clamp = (c >> 8) & 31, c & 31
        hi, lo = (lane & seg) | (clamp & ~seg & 31), lane & seg
        b = b & 31
        j = {"up": lane - b, "down": lane + b, "bfly": lane ^ b, "idx": lo | (b & ~seg & 31)}[mode]
        ok = (j >= hi) if mode == "up" else (j <= hi)
        j = np.where(ok, j, lane)
        src = np.arange(self.n) - lane + j
        if (~mm[np.clip(src, 0, self.n - 1)] & mm).any():
            raise PtxError("shuffle reads a lane that is not active")
        self.count["shuffles"] += self._warps(mm)
        v = x[np.clip(src, 0, self.n - 1)]
        if a[0][0] == "pair":
            self.put(a[0][2], ok, "pred", m)
        self.put(a[0], v, "b32", m)

    def op_vote(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        p = self.pred(a[1]) & mm
        nw = int(self.warp.max()) + 1
        yes, act = np.bincount(self.warp, p, nw), np.bincount(self.warp, mm, nw)
        mode = next(x for x in o if x in ("all", "any", "uni", "ballot"))
        if mode == "ballot":
            bits = np.zeros(nw, np.uint64)
            np.bitwise_or.at(bits, self.warp[p], np.uint64(1) << (self.tid[p] % np.uint64(32)))
            return self.put(a[0], bits[self.warp], "b32", m)
        r = {"all": yes == act, "any": yes > 0, "uni": (yes == 0) | (yes == act)}[mode]
        return self.put(a[0], r[self.warp], "pred", m)

    def op_activemask(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        bits = np.zeros(int(self.warp.max()) + 1, np.uint64)
        np.bitwise_or.at(bits, self.warp[mm], np.uint64(1) << (self.tid[mm] % np.uint64(32)))
        self.put(a[0], bits[self.warp], "b32", m)

    def op_elect(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        first = np.full(int(self.warp.max()) + 1, self.n)
        np.minimum.at(first, self.warp[mm], np.flatnonzero(mm))
        who = first[self.warp] == np.arange(self.n)
        if a[0][0] == "pair":
            self.put(a[0][2], who, "pred", m)

    def op_bar(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        if "warp" not in o:
            self.count["barriers"] += len(np.unique(self.cta[mm]))
            per = np.bincount(self.cta.astype(np.int64), mm, int(self.cta.max()) + 1)
            if len(a) < 2 and ((per != 0) & (per != self.nb)).any():
                self.count["partial_barriers"] += 1

    op_barrier = op_bar

    # atomics
    def op_atom(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array, ret: bool = True) -> None:
        d = 1 if ret else 0
        vec = next((x for x in o if re.fullmatch(r"v[248]", x)), None)
        if vec or ty in ("f16x2", "bf16x2"):
            raise PtxError("instruction not supported")
        size = BITS[ty] // 8
        space, ad = self.address(a[d], self._space(o))
        space, ad = self.locate(space, ad, mm)
        opn = next(x for x in o if x in ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"))
        x = self.val(a[d + 1], ty)
        y = self.val(a[d + 2], ty) if opn == "cas" else None
        old = np.zeros(self.n, x.dtype)
        for i in np.flatnonzero(mm):
            one = np.zeros(self.n, bool)
            one[i] = True
            cur = np.ascontiguousarray(self.load(space, ad, size, one)[i]).view(x.dtype)[0]
            old[i] = cur
            new = _atomic(opn, cur, x[i], None if y is None else y[i])
            data = np.zeros((self.n, size), np.uint8)
            data[i] = np.array([new], x.dtype).view(np.uint8)
            self.store(space, ad, data, one)
        self.count["atomics"] += int(mm.sum())
        if ret:
            self.put(a[0], old, ty, m)

    def op_red(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        if "async" in o:
            raise PtxError("instruction not supported")
        self.op_atom(o, a, ty, m, mm, ret=False)

    # matrices
    def _whole_warps(self, what: str, m: Mask) -> None:
        if m is not None and (np.bincount(self.warp, m) % 32).any():
            raise PtxError(f"{what} in a diverged warp")

    def op_ldmatrix(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        self._whole_warps("ldmatrix", m)
        num, trans = int(next(x for x in o if re.fullmatch(r"x[124]", x))[1:]), "trans" in o
        _, ad = self.address(a[1], "shared")
        _, ad = self.locate("shared", ad, mm)
        lane = (self.tid % np.uint64(32)).astype(np.int64)
        base = np.arange(self.n) - lane
        rows = self.load("shared", ad, 16, mm).view(np.uint16).reshape(self.n, 8)  # row addressed by each lane
        self.account("load", "shared", ad, 16, mm & (lane < 8 * num))
        for j, d in enumerate(a[0][1] if a[0][0] == "vec" else [a[0]]):
            r, c = lane // 4, 2 * (lane % 4)
            if trans:
                lo, hi = rows[base + 8 * j + c, r], rows[base + 8 * j + c + 1, r]
            else:
                lo, hi = rows[base + 8 * j + r, c], rows[base + 8 * j + r, c + 1]
            self.put(d, lo.astype(np.uint32) | (hi.astype(np.uint32) << np.uint32(16)), "b32", m)

    def op_mma(self, o: list[str], a: Args, ty: str, m: Mask, mm: Array) -> None:
        shape = next(x for x in o if re.fullmatch(r"m\d+n\d+k\d+", x))
        M, N, K = map(int, re.findall(r"\d+", shape))
        dt, at, bt, ct = o[-4:]
        if (M, N) != (16, 8) or at not in ("f16", "bf16", "tf32"):
            raise PtxError("mma shape or type not supported")
        self._whole_warps("mma", m)
        lanes = slice(None) if m is None else np.flatnonzero(m)

        def held(operand: Args, ty: str) -> Array:
            """What lanes hold, [warp, lane / 4, lane % 4, register, number in it], as float32."""
            regs = operand[1] if operand[0] == "vec" else [operand]
            bits = np.stack([self.raw(r, 32)[lanes] for r in regs], -1).reshape(-1, 8, 4, len(regs), 1)
            if ty in ("tf32", "f32"):
                return (bits & np.uint32(0xFFFFE000) if ty == "tf32" else bits).view(np.float32)
            halves = bits.view(np.uint16)  # the low one first
            return _bf2f(halves) if ty == "bf16" else halves.view(np.float16).astype(np.float32)

        a_held, b_held = held(a[1], at), held(a[2], bt)
        nw = len(a_held)
        # A's registers go by row and then by column, its lanes' numbers lie side by side; a lane's four sums are two of two rows
        A = a_held.reshape(nw, 8, 4, -1, 2, a_held.shape[4]).transpose(0, 4, 1, 3, 2, 5).reshape(nw, 16, K)
        B = b_held.transpose(0, 3, 2, 4, 1).reshape(nw, K, 8)
        C = held(a[3], ct).reshape(nw, 8, 4, 2, 2).transpose(0, 3, 1, 2, 4).reshape(nw, 16, 8)
        A, B, total = A.astype(np.float64), B.astype(np.float64), np.zeros((nw, 16, 8))
        for k in range(K):  # in this order on every processor, where a BLAS has its own
            total += A[:, :, k, None] * B[:, k, None, :]
        D = (total + C).astype(np.float32)
        self.count["mma"] += nw
        self.count["mma_flops"] += nw * 2 * M * N * K
        sums = D.reshape(nw, 2, 8, 4, 2).transpose(0, 2, 3, 1, 4).reshape(-1, 4)
        if dt != "f32":
            sums = sums.astype(np.float16).view(np.uint16).view(np.uint32)
        out = np.zeros((self.n, sums.shape[1]), sums.dtype)
        out[lanes] = sums
        for k, d in enumerate(a[0][1]):
            self.put(d, out[:, k], "f32" if dt == "f32" else "b32", m)
