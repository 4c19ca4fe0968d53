"""The headers of tar files: what tarfile finds is found, and damage is never taken for the end."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.manifest.tar import DamagedTarError, iter_members

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "link",
    tarfile.LNKTYPE: "link",
    tarfile.CHRTYPE: "special",
    tarfile.FIFOTYPE: "special",
}
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=30)


def packed(members, form=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content) if kind == tarfile.REGTYPE else 0, "there"
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def listed(data):
    return list(iter_members(io.BytesIO(data), len(data)))


def collect(found, data):
    for member in iter_members(io.BytesIO(data), len(data)):
        found.append(member)  # one by one: what came before the damage stays


def by_tarfile(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(info.name, info.offset_data, info.size, KINDS[info.type]) for info in tar]


@settings(deadline=None, max_examples=60)
@given(
    members=st.lists(
        st.tuples(
            st.lists(NAMES, min_size=1, max_size=12).map("/".join), st.binary(max_size=1500), st.sampled_from([*KINDS])
        ),
        min_size=1,
        max_size=6,
    ),
    form=st.sampled_from(FORMATS),
)
def test_the_members_are_those_that_tarfile_finds(members, form):
    try:
        data = packed(members, form)
    except ValueError:  # ustar has no room for this name
        data = packed([("short", content, kind) for _, content, kind in members], form)
    found = [(member.name.rstrip("/") or "/", member.offset, member.size, member.kind) for member in listed(data)]
    assert found == [(name or "/", *rest) for name, *rest in by_tarfile(data)]


def test_a_member_of_more_than_eight_gigabytes_is_listed():
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("large.jpg")
        info.size = 9 << 30
        header = info.tobuf(form)
        with pytest.raises(DamagedTarError, match=r"ends within the member 'large.jpg', 9,663,676,416 bytes too early"):
            listed(header)
        (member,) = _first(header, len(header) + (10 << 30))
        assert (member.offset, member.size) == (len(header), 9 << 30)


def _first(data, length):
    yield next(iter(iter_members(io.BytesIO(data), length)))


@pytest.mark.parametrize("form", FORMATS)
def test_a_tar_cut_off_anywhere_is_damaged_and_its_whole_members_come_before_that(form):
    data = packed([(f"{i}.jpg", bytes([i]) * 700, tarfile.REGTYPE) for i in range(3)], form)
    whole, end = listed(data), 3 * 512 + 3 * 1024
    for cut in range(1, end + 1, 37):
        found = []
        with pytest.raises(DamagedTarError):
            collect(found, data[:cut])
        assert found == whole[: len(found)]
        assert all(member.offset + member.size <= cut for member in found)
    assert listed(data[: end + 512]) == whole


def test_damage_between_two_members_names_the_one_before():
    data = bytearray(packed([("a.jpg", b"1", tarfile.REGTYPE), ("b.jpg", b"2", tarfile.REGTYPE)], tarfile.USTAR_FORMAT))
    data[1024 + 3] ^= 1
    with pytest.raises(DamagedTarError, match=r"no header of a tar file at byte 1,024, after the member 'a.jpg'"):
        listed(bytes(data))
    with pytest.raises(DamagedTarError, match="no header of a tar file at its beginning"):
        listed(b"x" * 2048)


def test_a_sparse_file_is_no_file_of_its_own():
    info = tarfile.TarInfo("sparse.jpg")
    info.size, info.pax_headers = 600, {"GNU.sparse.major": "1"}
    (member,) = listed(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024) + bytes(1024))
    assert (member.name, member.kind) == ("sparse.jpg", "special")


@settings(deadline=None, max_examples=150)
@given(data=st.data(), form=st.sampled_from(FORMATS))
def test_whatever_is_in_a_file_only_damage_is_reported(data, form):
    mutated = bytearray(
        packed([("ä" * 45 + "/" + "ö" * 45, b"1" * 600, tarfile.REGTYPE), ("b", b"", tarfile.DIRTYPE)], form)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    # The sums are mended, so that what they protect is looked at.
    for start in range(0, len(mutated), 512):
        block = mutated[start : start + 512]
        total = sum(block[:148]) + 256 + sum(block[156:])
        if any(block):
            mutated[start + 148 : start + 156] = b"%06o\0 " % total
    try:
        found = listed(bytes(mutated))
    except DamagedTarError:
        return
    assert all(0 <= member.offset <= member.offset + member.size <= len(mutated) for member in found)
