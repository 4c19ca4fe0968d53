"""State dicts from files, and files from a server."""

import hashlib
import http.server
import pickle
import socket
import threading
import time

import pytest
import safetensors.torch
import torch
from torch import nn

from featx.errors import WeightsError
from featx.vision import download, tensors
from featx.vision.registry import AUXILIARY, build


def network(n=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, n)).eval()


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def saved(tmp_path, content, name="weights.pth"):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    return path


WRAP = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "DataParallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "both": lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
}


@pytest.mark.parametrize("wrap", WRAP)
@pytest.mark.parametrize("suffix", ["pth", "pt"])
def test_a_checkpoint_gives_its_state_dict(tmp_path, wrap, suffix):
    state = network().state_dict()
    assert equal(tensors.read_state_dict(saved(tmp_path, WRAP[wrap](state), f"w.{suffix}")), state)


def test_safetensors_and_pth_give_the_same_network(tmp_path):
    source = network()
    for name in ("w.pth", "w.safetensors"):
        target = network()
        nn.init.zeros_(target[0].weight)
        tensors.load_into(target, tensors.read_state_dict(saved(tmp_path, source.state_dict(), name)), weights=name)
        assert equal(target.state_dict(), source.state_dict())


def test_weights_fit_a_network_without_values_and_keep_the_global_random_state():
    before = torch.random.get_rng_state()
    source = build("mnasnet0_5", 224, seed=3)
    empty = build("mnasnet0_5", 224)
    assert empty.classifier[1].weight.is_meta
    tensors.load_into(empty, tensors.unpack(tensors.pack(source), weights="x"), weights="x")
    assert equal(empty.state_dict(), source.state_dict())
    assert not any(tensor.is_meta for tensor in [*empty.parameters(), *empty.buffers()])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_half_precision_files_become_float32_and_counters_may_be_missing(tmp_path):
    state = {name: t.half() for name, t in network().state_dict().items() if "num_batches" not in name}
    target = network()
    tensors.load_into(target, tensors.read_state_dict(saved(tmp_path, state)), weights="w")
    assert {p.dtype for p in target.parameters()} == {torch.float32}
    assert torch.equal(target[3].weight, state["3.weight"].float())


def test_the_old_names_of_densenet_and_auxiliary_heads_are_understood():
    source = build("densenet121", 224, seed=0)
    old = {}
    for name, tensor in source.state_dict().items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in name:
                name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        old[name] = tensor
    assert any(".norm.1." in name for name in old)
    target = build("densenet121", 224)
    tensors.load_into(target, old, weights="old")
    assert equal(target.state_dict(), source.state_dict())

    source = build("googlenet", 224, seed=0)
    with_heads = dict(source.state_dict()) | {
        "aux1.fc1.weight": torch.zeros(2),
        "aux2.conv.conv.weight": torch.zeros(1),
    }
    target = build("googlenet", 224)
    tensors.load_into(target, with_heads, weights="heads", ignore=AUXILIARY)
    assert equal(target.state_dict(), source.state_dict())


def test_another_architecture_names_the_keys_that_differ(tmp_path):
    state = dict(network(3).state_dict())
    state["extra.weight"] = state.pop("0.bias")
    with pytest.raises(WeightsError) as caught:
        tensors.load_into(network(2), state, weights="'w.pth'")
    text = str(caught.value)
    assert "1 missing: 0.bias" in text
    assert "1 unexpected: extra.weight" in text
    assert "2 of another shape: 3.weight (the file has (3, 4), the network (2, 4))" in text
    assert caught.value.exit_code == 7
    assert isinstance(caught.value, OSError)


def test_many_differing_keys_are_counted_and_only_the_first_are_named():
    with pytest.raises(WeightsError, match=r"\d\d missing: conv1.weight, .*, \.\.\.\n"):
        tensors.load_into(build("resnet18", 224), build("squeezenet1_1", 224, seed=0).state_dict(), weights="w")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_with_code_inside_is_refused_and_not_run(tmp_path):
    mark = tmp_path / "ran"
    with pytest.raises(WeightsError, match="could run code"):
        tensors.read_state_dict(saved(tmp_path, {"a": Bomb(mark)}))
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(WeightsError):
        tensors.read_state_dict(tmp_path / "plain.pth")
    assert not mark.exists()


def test_a_whole_pickled_network_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match="state_dict"):
        tensors.read_state_dict(saved(tmp_path, network()))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken", b"\x80\x02}q\x00", b"\xff" * 64])
def test_a_damaged_file_is_a_weights_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        tensors.read_state_dict(tmp_path / name)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_file_is_a_weights_error(tmp_path, suffix):
    path = saved(tmp_path, network().state_dict(), f"w.{suffix}")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError):
        tensors.read_state_dict(path)


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_a_missing_file_is_a_weights_error(tmp_path, name):
    with pytest.raises(WeightsError, match="does not exist"):
        tensors.read_state_dict(tmp_path / name)
    with pytest.raises(WeightsError):
        tensors.read_state_dict(tmp_path)


@pytest.mark.parametrize("content", [{"a": 1}, {}, torch.zeros(3), [torch.zeros(3)]], ids=str)
def test_a_file_without_a_state_dict_says_what_it_holds(tmp_path, content):
    with pytest.raises(WeightsError, match="holds no state dict"):
        tensors.read_state_dict(saved(tmp_path, content))


def test_the_hash_of_tensors_sees_names_values_shapes_and_dtypes():
    hashes = {tensors.tensors_sha256(network())}
    assert hashes == {tensors.tensors_sha256(network())}
    changes = [
        lambda net: net[0].weight.data.mul_(2),
        lambda net: net.append(nn.Linear(1, 1)),
        lambda net: setattr(net[3], "weight", nn.Parameter(net[3].weight.reshape(4, 2))),
        lambda net: net[3].double(),
        lambda net: setattr(net[3], "bias", None),
    ]
    for change in changes:
        changed = network()
        change(changed)
        hashes.add(tensors.tensors_sha256(changed))
    assert len(hashes) == 1 + len(changes)


def test_tensors_that_share_memory_are_packed():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    again = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tensors.load_into(again, tensors.unpack(tensors.pack(net), weights="w"), weights="w")
    assert equal(again.state_dict(), net.state_dict())
    with pytest.raises(WeightsError, match="damaged"):
        tensors.unpack(b"no tensors", weights="w")


CONTENT = bytes(range(256)) * 9000
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if "absent" in self.path:
            self.send_error(404)
            return
        body = CONTENT[:-1] if "short" in self.path else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_download_is_checked_kept_and_not_repeated(tmp_path, server):
    seen = []
    url = f"{server.address}/models/net-{DIGITS}.pth"
    for _ in range(2):
        path, sha256 = download.fetch(url, folder=tmp_path / "new", progress=lambda *args: seen.append(args))
        assert path.read_bytes() == CONTENT
        assert sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert len(server.asked) == 1
    assert seen[-1] == (f"net-{DIGITS}.pth", len(CONTENT), len(CONTENT))
    assert [count for _, count, _ in seen] == sorted({count for _, count, _ in seen})
    assert [p.name for p in (tmp_path / "new").iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["net-00000000.pth", f"short-{DIGITS}.pth", f"absent-{DIGITS}.pth"])
def test_a_wrong_or_broken_download_is_an_error_and_leaves_nothing(tmp_path, server, name):
    with pytest.raises(WeightsError, match=r"SHA-256|cannot be downloaded"):
        download.fetch(f"{server.address}/{name}", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cached_file_whose_sha256_is_wrong_is_refused(tmp_path, server):
    path = tmp_path / f"net-{DIGITS}.pth"
    path.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="delete the file"):
        download.fetch(f"{server.address}/{path.name}", folder=tmp_path)
    assert path.read_bytes() == b"something else"
    assert server.asked == []


def refused():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


def check_way_out(url, folder):
    start = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        download.fetch(url, folder=folder)
    assert time.monotonic() - start < 2
    text = str(caught.value)
    for words in (url, str(folder), "--weights FILE", "--backbone featx-mini"):
        assert words in text


def test_without_a_server_it_fails_in_under_two_seconds_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    check_way_out(f"{refused()}/models/net-{DIGITS}.pth", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_name_that_cannot_be_looked_up_fails_in_under_two_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    check_way_out(f"https://no-such-host.invalid/net-{DIGITS}.pth", tmp_path)


def test_a_host_that_never_answers_fails_in_under_two_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    # A listener whose queue is full takes no connection and refuses none.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        address = silent.getsockname()
        queue = [socket.socket() for _ in range(4)]
        for sock in queue:
            sock.setblocking(False)
            sock.connect_ex(address)
        time.sleep(0.05)
        check_way_out(f"http://127.0.0.1:{address[1]}/net-{DIGITS}.pth", tmp_path)
        for sock in queue:
            sock.close()


def test_a_proxy_that_is_down_counts_as_offline(tmp_path, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("https_proxy", refused())
    check_way_out(f"https://download.pytorch.org/models/net-{DIGITS}.pth", tmp_path)


def test_a_proxy_is_used_where_there_is_one(tmp_path, monkeypatch, server):
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", server.address)
    path, _ = download.fetch(f"http://no-such-host.invalid/net-{DIGITS}.pth", folder=tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [f"http://no-such-host.invalid/net-{DIGITS}.pth"]


def test_a_folder_that_cannot_be_written_is_a_weights_error(tmp_path, server):
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        download.fetch(f"{server.address}/net-{DIGITS}.pth", folder=tmp_path / "file")


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"hello world", b"(l", b"I", b"PK\x03\x04 cut", b"K\x01.", b"\x80\x02"]
)
def test_a_weights_file_of_other_bytes_is_refused_with_its_name_and_a_reason(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights\.pth' (is damaged|cannot be read: .)"):
        tensors.read_state_dict(path)
