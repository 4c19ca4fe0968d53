"""Sources behind URLs: file://, memory:// and a server of one's own; what is not there, and what is not installed."""

import functools
import http.server
import os
import socket
import sys
import threading
import uuid

import pytest
from source_samples import shard

from featx.errors import ImageDecodeError, ManifestError, MissingExtraError, UsageError
from featx.manifest import files, remote
from featx.manifest.source import SourceOptions, read_bytes, read_source, stat

fsspec = pytest.importorskip("fsspec")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Python's own server, with parts of files, ETags and trouble on request."""

    def send_head(self):
        self.server.asked.append((self.command, self.path, self.headers.get("Range")))
        if "trouble" in self.path:
            self.send_error(503)
            return None
        path, wanted = self.translate_path(self.path), self.headers.get("Range")
        if not wanted or self.server.whole_only or not os.path.isfile(path):
            return super().send_head()
        first, last = wanted.removeprefix("bytes=").split("-")
        with open(path, "rb") as file:
            content = file.read()
        part = content[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(part)
        return None

    def end_headers(self):
        if self.server.tag:
            self.send_header("ETag", self.server.tag.strip())
        if not self.server.whole_only:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def send_header(self, keyword, value):
        if keyword != "Last-Modified" or not self.server.tag:
            super().send_header(keyword, value)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    pytest.importorskip("aiohttp")
    (tmp_path / "served").mkdir()
    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked, server.whole_only, server.tag = [], False, ""
        server.folder, server.url = tmp_path / "served", f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=["file", "memory", "http"])
def place(request, tmp_path):
    """A function that writes files, and the URL below which they are."""
    if request.param == "file":
        folder, url = tmp_path / "local", f"file://{tmp_path}/local"
    elif request.param == "http":
        server = request.getfixturevalue("server")
        folder, url = server.folder, server.url
    else:
        folder, url = tmp_path / "memory", f"memory://{uuid.uuid4().hex}"

    def write(**contents):
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if request.param == "memory":
                fsspec.filesystem("memory").pipe(f"{url}/{name}", content)

    return write, url, request.param


def test_a_folder_behind_a_url_is_read_like_one_on_this_machine(place, tmp_path):
    write, url, kind = place
    write(**{"train/ants/1.jpg": b"one", "val/bees/2.png": b"two", "notes.txt": b"", "train/.hidden.jpg": b""})
    manifest = read_source(url)
    assert manifest.keys == ["train/ants/1.jpg", "val/bees/2.png"]
    assert (manifest.labels, manifest.splits) == (["ants", "bees"], ["train", "val"])
    assert (manifest.root, manifest.skipped) == (url, {".txt": 1})
    assert [read_bytes(manifest, i) for i in range(2)] == [b"one", b"two"]
    size, time = stat(manifest, 0)
    assert size == 3
    if kind == "file":
        assert time == pytest.approx((tmp_path / "local/train/ants/1.jpg").stat().st_mtime_ns, abs=1000)
    assert time > 1e18
    assert read_source(f"{url}/", SourceOptions(limit=1)).keys == ["train/ants/1.jpg"]


def test_shards_behind_a_url_are_indexed_and_read_in_parts(place, tmp_path):
    write, url, kind = place
    for i in range(2):
        path = shard(tmp_path / f"made/{i}.tar", [("1.jpg", bytes([i]) * 3000), ("1.cls", str(i))])
        write(**{f"shards/train-00{i}.tar": path.read_bytes()})
    expected = ["train-000/1.jpg", "train-001/1.jpg"]
    patterns = ["{000..001}.tar"] if kind == "http" else ["{000..001}.tar", "*.tar"]
    for source in (f"{url}/shards", *(f"{url}/shards/train-{pattern}" for pattern in patterns)):
        manifest = read_source(source)
        assert (manifest.keys, manifest.labels, manifest.splits) == (expected, ["0", "1"], ["train"] * 2)
        assert read_bytes(manifest, 1) == b"\1" * 3000
        assert stat(manifest, 1)[0] == 3000
    assert read_source(f"{url}/shards/train-001.tar").keys == expected[1:]


def test_parquet_behind_a_url_is_read_in_parts(place, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write, url, _ = place
    images = [bytes([i]) * 40_000 for i in range(30)]
    pq.write_table(pa.table({"image": images, "label": ["a", "b", "c"] * 10}), tmp_path / "x", row_group_size=10)
    write(**{"data/test-0.parquet": (tmp_path / "x").read_bytes(), "bad.parquet": b"PAR1" * 10})
    for source in (f"{url}/data", f"{url}/data/test-0.parquet"):
        manifest = read_source(source)
        assert (manifest.labels[:3], manifest.splits[0]) == (["a", "b", "c"], "test")
        assert [read_bytes(manifest, i) for i in (29, 3, 4, 12)] == [images[i] for i in (29, 3, 4, 12)]
    with pytest.raises(ManifestError, match="cannot read this Parquet file"):
        read_source(f"{url}/bad.parquet")


def test_a_table_behind_a_url_and_urls_in_a_table(place, tmp_path):
    write, url, _ = place
    write(**{"a/1.jpg": b"one", "t.csv": b"path,label\na/1.jpg,x\n"})
    manifest = read_source(f"{url}/t.csv")
    assert (manifest.keys, manifest.labels, manifest.root) == (["a/1.jpg"], ["x"], url)
    assert read_bytes(manifest, 0) == b"one"
    (tmp_path / "2.jpg").write_bytes(b"two")
    (tmp_path / "t.csv").write_text(f"path\n{url}/a/1.jpg\n2.jpg\n")
    manifest = read_source(tmp_path / "t.csv")
    assert manifest.keys == [f"{url}/a/1.jpg", "2.jpg"]
    assert [read_bytes(manifest, i) for i in range(2)] == [b"one", b"two"]
    (tmp_path / "t.csv").write_text(f"path\n{url}/a/1.jpg\n")
    assert read_source(tmp_path / "t.csv", SourceOptions(root=url)).keys == ["a/1.jpg"]
    write(**{"t.csv": b"path\n/a/1.jpg\n"})
    with pytest.raises(ManifestError, match=r"'/a/1\.jpg' is not below"):
        read_source(f"{url}/t.csv")


def test_one_image_behind_a_url(place):
    write, url, _ = place
    write(**{"a/1.jpg": b"one"})
    manifest = read_source(f"{url}/a/1.jpg")
    assert manifest.keys == ["1.jpg"]
    assert read_bytes(manifest, 0) == b"one"


def test_what_is_not_there_is_an_error_of_the_source_or_a_failed_row(place, tmp_path):
    write, url, _ = place
    write(**{"a/1.jpg": b"one", "a/2.jpg": b""})
    (tmp_path / "t.csv").write_text(f"path\n{url}/a/3.jpg\n{url}/a/2.jpg\n")
    manifest = read_source(tmp_path / "t.csv")
    for position, reason in enumerate(["missing", "empty"]):
        with pytest.raises(ImageDecodeError) as caught:
            read_bytes(manifest, position)
        assert caught.value.reason == reason
    assert stat(manifest, 0) is None
    for source in ("nowhere", "nowhere.tar", "nowhere.csv", "nowhere-{0..1}.tar"):
        with pytest.raises(ManifestError, match=r"no such file|cannot read this|no images|cannot look"):
            read_source(f"{url}/{source}")


# ---- a server


def test_only_headers_and_the_wanted_image_of_a_shard_are_fetched(server, tmp_path):
    path = shard(tmp_path / "s.tar", [(f"{i}.jpg", bytes([i]) * 1_000_000) for i in range(4)])
    path.rename(server.folder / "s.tar")
    manifest = read_source(f"{server.url}/s.tar")
    ranges = [wanted.removeprefix("bytes=").split("-") for command, _, wanted in server.asked if wanted]
    assert sum(int(last) - int(first) + 1 for first, last in ranges) < 2_500_000
    server.asked.clear()
    assert read_bytes(manifest, 2) == b"\2" * 1_000_000
    assert server.asked == [("GET", "/s.tar", f"bytes={2 * 1_000_960 + 512}-{2 * 1_000_960 + 512 + 999_999}")]


def test_a_server_that_gives_whole_files_only_is_named(server, tmp_path):
    shard(tmp_path / "s.tar", [(f"{i}.jpg", bytes(600_000)) for i in range(2)]).rename(server.folder / "s.tar")
    manifest = read_source(f"{server.url}/s.tar")
    server.whole_only = True
    with pytest.raises(ManifestError, match=r"s\.tar: cannot read this tar file: "):
        read_source(f"{server.url}/s.tar")
    with pytest.raises(ImageDecodeError, match=r"unreadable: .* bytes instead of 600000"):
        read_bytes(manifest, 1)


def test_trouble_with_the_server_is_a_failed_row_or_an_error_of_the_source(server, tmp_path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{sock.getsockname()[1]}"
    (tmp_path / "t.csv").write_text(f"path\n{server.url}/trouble.jpg\n{nobody}/1.jpg\n")
    manifest = read_source(tmp_path / "t.csv")
    for position, said in enumerate(["503", "Cannot connect"]):
        with pytest.raises(ImageDecodeError, match=f"unreadable: .*{said}"):
            read_bytes(manifest, position)
        assert stat(manifest, position) is None
    for url in (f"{server.url}/trouble", f"{server.url}/trouble.tar", nobody, f"{nobody}/s.tar", f"{nobody}/t.csv"):
        with pytest.raises(ManifestError, match=r"503|Cannot connect"):
            read_source(url)


def test_the_etag_stands_for_the_time_where_there_is_none(server, tmp_path):
    (server.folder / "1.jpg").write_bytes(b"one")
    times = []
    for server.tag in ('"a"', '"a"', '"b"'):
        remote._stat.cache_clear()
        times.append(files.stat_file(f"{server.url}/1.jpg"))
    assert times[0] == times[1] != times[2]
    assert {size for size, _ in times} == {3}
    assert all(0 < time < 2**63 for _, time in times)


def test_a_file_of_no_known_time_looks_changed_whenever_it_is_looked_at(server):
    (server.folder / "1.jpg").write_bytes(b"one")
    server.tag = " "  # no time is sent, and the tag says nothing
    first, second = (remote._stat(f"{server.url}/1.jpg", i) for i in range(2))
    assert first[0] == second[0] == 3
    assert 1e18 < first[1] < second[1]


def test_the_shard_of_many_images_is_asked_for_once(server, tmp_path):
    shard(tmp_path / "s.tar", [(f"{i}.jpg", b"x") for i in range(50)]).rename(server.folder / "s.tar")
    manifest = read_source(f"{server.url}/s.tar")
    server.asked.clear()
    assert {stat(manifest, i) for i in range(50)} == {stat(manifest, 0)}
    assert len(server.asked) <= 2


# ---- what is not installed or not meant


@pytest.mark.parametrize(("url", "extra"), [("s3://bucket/a", "s3"), ("gs://bucket/a", "gs"), ("GS://bucket/a", "gs")])
def test_a_client_that_is_not_installed_is_an_extra(monkeypatch, url, extra):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match=rf"reading {extra}:// needs.*featx\[{extra}\]"):
        read_source(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1/a", "memory://a", "file:///a"])
def test_without_fsspec_a_url_is_a_missing_extra(monkeypatch, tmp_path, url):
    for name in [name for name in sys.modules if name.partition(".")[0] == "fsspec"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    (tmp_path / "t.csv").write_text(f"path\n{url}/1.jpg\n")
    for source in (url, tmp_path / "t.csv", f"{url}/s-{{0..3}}.tar"):
        with pytest.raises(MissingExtraError, match=r"featx\[remote\]"):
            read_source(source)


def test_a_scheme_that_does_not_exist_is_named():
    with pytest.raises(UsageError, match=r"nosuch://a.*Protocol not known"):
        read_source("nosuch://a")


def test_a_password_in_a_url_is_no_part_of_the_key(tmp_path):
    pytest.importorskip("aiohttp")
    (tmp_path / "t.csv").write_text("path\nhttp://me:secret@127.0.0.1/a/1.jpg\n")
    manifest = read_source(tmp_path / "t.csv")
    assert manifest.keys == ["http://127.0.0.1/a/1.jpg"]
    assert manifest.paths[0] == "http://me:secret@127.0.0.1/a/1.jpg"


def test_a_table_from_elsewhere_names_no_file_of_this_machine(tmp_path):
    url = f"memory://{uuid.uuid4().hex}/t.csv"
    fsspec.filesystem("memory").pipe(url, f"path\nfile://{tmp_path}/1.jpg\n".encode())
    with pytest.raises(ManifestError, match="names a file of this machine"):
        read_source(url)


def test_what_a_file_system_cannot_do_is_an_os_error():
    class Deaf(fsspec.AbstractFileSystem):
        """fsspec's own answers where a file system defines nothing."""

    fsspec.register_implementation("deaf", Deaf, clobber=True)
    with pytest.raises(OSError, match="NotImplementedError"):
        remote.list_files("deaf://a")
    with pytest.raises(OSError, match="NotImplementedError"):
        remote.read("deaf://a")
