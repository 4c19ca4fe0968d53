"""Files damaged in many ways, each by a seed: flipped bits, cut ends, lengths of billions, pieces of other files."""

import io
import json
import random
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

Way = Callable[[bytes, random.Random, Sequence[bytes]], bytes]
"""From a file's bytes and those of other files to damaged ones."""

_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 10**6, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1)
_WORDS = (
    b"\0",
    b'"',
    b"'",
    b",",
    b"\t",
    b"\r",
    b"\n",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"../",
    b"/",
    b"NaN",
    b"-1",
    b"1e999",
)
_NUMBER = re.compile(rb"\d+")
_BOX = 16  # bytes of the smallest piece that is moved about


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Damage bytes in one to sixteen places."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        rng.choice(_DAMAGES)(damaged, rng, others)
    return bytes(damaged)


def _place(data: bytearray, rng: random.Random) -> int:
    """Where to strike: anywhere, but as often near the beginning or the end, where the lengths are."""
    n = max(1, len(data))
    near = min(n, 600)
    return rng.choice((rng.randrange(n), rng.randrange(near), n - 1 - rng.randrange(near)))


def _piece(data: bytearray, rng: random.Random) -> tuple[int, int]:
    start = _place(data, rng)
    longest = rng.choice((_BOX, 256, max(_BOX, len(data) // 2)))
    return start, start + rng.randint(1, longest)


def _flip_bits(data: bytearray, rng: random.Random, _others: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 8)) if data else 0):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: random.Random, _others: Sequence[bytes]) -> None:
    start, stop = _piece(data, rng)
    n = len(data[start:stop])
    data[start:stop] = rng.choice((bytes(n), b"\xff" * n, rng.randbytes(n)))


def _write_number(data: bytearray, rng: random.Random, _others: Sequence[bytes]) -> None:
    size = rng.choice((1, 2, 4, 8))
    number = (rng.choice(_EDGES) + rng.choice((0, 0, -1, 1))) % 256**size
    start = _place(data, rng)
    data[start : start + size] = number.to_bytes(size, rng.choice(("little", "big")))


def _write_digits(data: bytearray, rng: random.Random, _others: Sequence[bytes]) -> None:
    found = list(_NUMBER.finditer(data, max(0, _place(data, rng) - 300)))[:50]
    if found:
        start, stop = rng.choice(found).span()
        data[start:stop] = rng.choice((b"%d" % rng.choice(_EDGES), b"-1", b"9" * 400, b"0.5", b""))


def _write_word(data: bytearray, rng: random.Random, _others: Sequence[bytes]) -> None:
    start = _place(data, rng)
    word = rng.choice(_WORDS) * rng.choice((1, 1, 2, 5000))
    data[start : start + rng.choice((0, len(word)))] = word


def _cut(data: bytearray, rng: random.Random, _others: Sequence[bytes]) -> None:
    del data[_place(data, rng) :]


def _remove(data: bytearray, rng: random.Random, _others: Sequence[bytes]) -> None:
    start, stop = _piece(data, rng)
    del data[start:stop]


def _repeat(data: bytearray, rng: random.Random, _others: Sequence[bytes]) -> None:
    start, stop = _piece(data, rng)
    data[start:start] = data[start:stop] * rng.choice((1, 1, 3, 20))


def _move(data: bytearray, rng: random.Random, _others: Sequence[bytes]) -> None:
    start, stop = _piece(data, rng)
    piece = data[start:stop]
    del data[start:stop]
    to = _place(data, rng)
    data[to:to] = piece


def _insert(data: bytearray, rng: random.Random, _others: Sequence[bytes]) -> None:
    start = _place(data, rng)
    data[start:start] = rng.randbytes(rng.choice((1, _BOX, 1000)))


def _behead(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """The beginning of another file, the rest of this one."""
    n = rng.choice((4, 12, 32, 128, 512))
    data[: rng.choice((n, rng.randrange(n)))] = rng.choice(others)[:n]


def _transplant(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    start, stop = _piece(data, rng)
    other = bytearray(rng.choice(others))
    at = rng.choice((start, _place(other, rng)))
    data[start:stop] = other[at : at + stop - start]


_DAMAGES = (
    _flip_bits,
    _overwrite,
    _write_number,
    _write_number,
    _write_digits,
    _write_word,
    _cut,
    _remove,
    _repeat,
    _move,
    _insert,
    _behead,
    _transplant,
)


def mutate_json(text: bytes, rng: random.Random) -> bytes:
    """Put strange values in the place of one to four values of a JSON document; it stays JSON, mostly."""
    root = [json.loads(text)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        holders = list(_holders(root))
        holder, name = rng.choice(holders)
        if len(holders) > 1 and rng.random() < 0.2 and holder is not root:
            del holder[name]
        else:
            holder[name] = _strange(holder[name], rng)
    return json.dumps(root[0]).encode()


def _holders(value: Any) -> list[tuple[Any, Any]]:
    """Every container below a value, with each of its places."""
    found = []
    if isinstance(value, dict | list):
        for name in list(value) if isinstance(value, dict) else range(len(value)):
            found += [(value, name), *_holders(value[name])]
    return found


def _strange(value: Any, rng: random.Random) -> Any:
    numbers = (-1, 0, 1, 2**31, 2**63, 10**30, 0.5, float("nan"), float("inf"))
    texts = ("", "\0", "\ud800", "x" * 70_000, "../../x", "os.system", "float99", "plain", "0")
    nested: Any = []
    for _ in range(300):
        nested = [nested]
    simple = (None, True, *numbers, *texts, [], {}, nested, [value], {"a": value}, [value] * 50)
    return rng.choice(simple)


def in_json(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Damage a JSON document without breaking its grammar."""
    del others
    return mutate_json(data, rng)


def in_png(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Damage what is inside the chunks of a PNG and mend their checksums."""
    chunks, start = [], 8
    while start < len(data):
        n, kind = struct.unpack_from(">I4s", data, start)
        chunks.append((kind, data[start + 8 : start + 8 + n]))
        start += 12 + n
    at = rng.randrange(len(chunks))
    kind, content = chunks[at]
    if kind == b"IDAT" and rng.random() < 0.5:
        content = zlib.compress(mutate(zlib.decompress(content), rng, others)) if len(chunks) < 5 else content[:-1]
    else:
        content = mutate(content, rng, others)
    chunks[at] = kind, content
    if rng.random() < 0.2:
        chunks.insert(rng.randrange(len(chunks)), rng.choice(chunks))
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return data[:8] + b"".join(parts)


def in_zip(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Damage one member of a zip, at times one of a zip in it, and pack it again with the right checksums."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    content = members[name]
    if content[:2] == b"PK" and rng.random() < 0.8:
        content = in_zip(content, rng, others)
    elif content[:1] in (b"{", b"[") and rng.random() < 0.8:
        content = mutate_json(content, rng)
    else:
        content = mutate(content, rng, others)
    members[name] = content
    if rng.random() < 0.05:
        del members[rng.choice(list(members))]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def in_tar(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Damage a header or a member of a tar and mend the header's checksum."""
    blocks = bytearray(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = rng.choice(archive.getmembers())
    if rng.random() < 0.4:
        content = mutate(data[member.offset_data : member.offset_data + member.size], rng, others)
        blocks[member.offset_data : member.offset_data + member.size] = content[: member.size].ljust(member.size, b"\0")
        return bytes(blocks)
    header = bytearray(mutate(data[member.offset : member.offset + 512], rng, others)[:512].ljust(512, b"\0"))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    blocks[member.offset : member.offset + 512] = header
    return bytes(blocks)


def in_safetensors(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Damage the header of a safetensors file and mend its length."""
    (n,) = struct.unpack_from("<Q", data)
    header = data[8 : 8 + n]
    header = mutate_json(header, rng) if rng.random() < 0.7 else mutate(header, rng, others)
    return struct.pack("<Q", len(header)) + header + data[8 + n :]


def in_journal(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Damage what a line of a journal says and mend its checksum."""
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    text = lines[at].rstrip(b"\n").partition(b" ")[2]
    text = mutate_json(text, rng) if rng.random() < 0.8 else mutate(text, rng, others).replace(b"\n", b"")
    lines[at] = b"%08x %s\n" % (zlib.crc32(text), text)
    return b"".join(lines)
