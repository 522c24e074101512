"""Ways to damage a file: blindly, byte by byte, or by its format, so that the damage gets past checksums and lengths."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from typing import Any

import numpy as np

MAGIC = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
VALUES: tuple[Any, ...] = (None, True, False, 0, 1, -1, 3, 1 << 31, 1 << 63, 10**30, -0.5, 1e308, float("nan"), float("inf"), "",
                           "x", "NaN", [], [1], [[1]], {}, {"kind": "GaussianEnergy"}, [0, 0, 0], [10**9, 1, 1])


def damaged(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to four changes, one in three of them by format where there is one."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        by_format = _safetensors if _header(data) is not None else _zip if data[:2] == b"PK" else None
        if by_format is not None and rng.random() < 0.4:
            data = by_format(data, rng)
        else:
            data = rng.choice((_flip, _flip, _set, _number, _cut, _remove, _repeat, _insert, _splice))(data, rng, others)
    return data


def _at(data: bytes, rng: random.Random) -> int:
    """A place, near the beginning or the end as often as anywhere, where formats keep what matters."""
    size = max(len(data), 1)
    return rng.choice((rng.randrange(size), rng.randrange(min(size, 128)), size - 1 - rng.randrange(min(size, 128))))


def _flip(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    i = _at(data, rng)
    return data[:i] + bytes([data[i] ^ 1 << rng.randrange(8)]) + data[i + 1:] if data else data


def _set(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    i = _at(data, rng)
    return data[:i] + bytes([rng.randrange(256)]) + data[i + 1:]


def _number(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    size, i = rng.choice((1, 2, 4, 8)), _at(data, rng)
    value = (rng.choice(MAGIC) & (1 << 8 * size) - 1).to_bytes(size, rng.choice(("little", "big")))
    return data[:i] + value + data[i + size:]


def _cut(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    return data[:_at(data, rng)]


def _remove(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    i = _at(data, rng)
    return data[:i] + data[i + rng.randrange(1, 40):]


def _repeat(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    i = _at(data, rng)
    return data[:i] + data[i:i + rng.randrange(1, 40)] * rng.choice((2, 3, 100)) + data[i:]


def _insert(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    i = _at(data, rng)
    return data[:i] + rng.randbytes(rng.randrange(1, 20)) + data[i:]


def _splice(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    other = rng.choice(others)
    return data[:_at(data, rng)] + other[_at(other, rng):]


def _header(data: bytes) -> Any:
    """The header of a safetensors file, None if it is none."""
    try:
        size = struct.unpack("<Q", data[:8])[0]
        return json.loads(data[8:8 + size]) if size < len(data) else None
    except (struct.error, ValueError):
        return None


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    """Another header, at times without the digest that it no longer has; the length before it is right."""
    size, header = struct.unpack("<Q", data[:8])[0], _header(data)
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if isinstance(metadata, dict):
        if rng.random() < 0.9:
            metadata.pop("sha256", None)
        inner = [key for key, value in metadata.items() if isinstance(value, str) and value.startswith("{")]
        if inner and rng.random() < 0.7:
            key = rng.choice(inner)
            try:
                metadata[key] = json.dumps(changed(json.loads(metadata[key]), rng))
            except ValueError:  # changed before, and no JSON now
                metadata[key] = "{"
            return _packed(header, data[8 + size:])
    return _packed(changed(header, rng), data[8 + size:])


def _packed(header: Any, tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def _zip(data: bytes, rng: random.Random) -> bytes:
    """An archive with one member damaged, whose checksum fits what it holds."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception:  # damaged before
        return data[:len(data) // 2]
    name = rng.choice(sorted(members) or [""])
    content = members.pop(name, b"")
    if (start := content.find("{".encode("utf-32-le"))) > 0 and rng.random() < 0.7:  # a posterior's figures, text in 32 bits
        try:
            text, file = json.dumps(changed(json.loads(content[start:].decode("utf-32-le")), rng)), io.BytesIO()
            np.save(file, np.array(text))
            content = file.getvalue()
        except ValueError:
            content = content[:start]
    elif rng.random() < 0.9:
        content = damaged(content, rng, list(members.values()) or [b"x"])
    if rng.random() < 0.9:
        members[name if rng.random() < 0.9 else "other.npy"] = content
    out = io.BytesIO()
    way = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(out, "w", way) as new:
        for key, value in members.items():
            if not key:  # which zipfile cannot write
                continue
            new.writestr(key, value)
    return out.getvalue()


def changed(value: Any, rng: random.Random) -> Any:
    """JSON with one place of it replaced, removed, renamed or nested."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        way = rng.random()
        kept = {k: v for k, v in value.items() if k != key}
        return (value | {key: changed(value[key], rng)} if way < 0.8 else kept if way < 0.9
                else kept | {rng.choice(("", "x", *sorted(value))): value[key]})
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        return [*value[:i], *([] if rng.random() < 0.2 else [changed(value[i], rng)]), *value[i + 1:]]
    if isinstance(value, int | float) and rng.random() < 0.3:
        return rng.choice((value + 1, -value, value * 1000, float(value), str(value)))
    return rng.choice((*VALUES, [value], {"x": value}))
