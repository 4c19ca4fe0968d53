"""A record of what the store does to the file system, and the states that a crash could leave of it."""

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

from featx.store import disk

OPERATIONS = (
    "open_file", "write", "truncate", "sync", "replace", "unlink", "make_folder", "remove_folder", "sync_folder",
)  # fmt: skip


class Recorder:
    """Wraps the functions of `featx.store.disk`: notes every call; refuses the n-th, or all from there on.

    Attributes
    ----------
    calls : list of tuple
        ``(name, arguments)`` with paths relative to `root` and files by the number of their opening.
    """

    def __init__(self, monkeypatch, root, *, refuse_at=None, error=None, once=False):
        self.root = Path(root)
        self.calls = []
        self.refused = []
        self._refuse_at = refuse_at
        self._error = error
        self._once = once
        self._files = {}
        for name in OPERATIONS:
            monkeypatch.setattr(disk, name, self._wrapped(name, getattr(disk, name)))

    def note(self, mark):
        self.calls.append(("note", (mark,)))

    def _wrapped(self, name, function):
        def call(*args, **options):
            is_due = self._refuse_at is not None and len(self.calls) >= self._refuse_at
            if is_due and not (self._once and self.refused):
                self.refused.append(name)
                if isinstance(self._error, signal.Signals):
                    signal.raise_signal(self._error)
                else:
                    raise self._error
            result = function(*args, **options) if name != "sync_folder" else None
            if name == "open_file":
                self._files[result] = len(self.calls)
                args = (*args, options.get("empty", False))
            noted = []
            for i, arg in enumerate(args):
                if isinstance(arg, Path):
                    noted.append(str(arg.relative_to(self.root)))
                elif name in ("write", "truncate", "sync") and i == 0:
                    noted.append(self._files[arg])
                else:
                    noted.append(bytes(arg) if name == "write" and i == 1 else arg)  # HDF5 uses its buffers again
            self.calls.append((name, tuple(noted)))
            return result

        return call


@dataclass
class FileSystem:
    """Names and bytes, as a running machine sees them and as a power cut leaves them.

    Attributes
    ----------
    names, synced_names : dict of str to int or None
        Path to the number of a file, None for a folder; the second as of the last sync of each folder.
    data, synced_data : dict of int to bytes
        By number; the second as of the last sync of each file.
    """

    names: dict = field(default_factory=dict)
    synced_names: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    synced_data: dict = field(default_factory=dict)
    _opened: dict = field(default_factory=dict)

    @classmethod
    def of(cls, root):
        """Take what is in a real folder as synced."""
        system = cls()
        for number, path in enumerate(sorted(Path(root).rglob("*"))):
            name, number = str(path.relative_to(root)), -1 - number
            system.names[name] = None if path.is_dir() else number
            if path.is_file():
                system.data[number] = path.read_bytes()
        system.synced_names, system.synced_data = dict(system.names), dict(system.data)
        return system

    def apply(self, number, name, args, *, torn=False):
        getattr(self, "_" + name)(number, *args, **({"torn": True} if torn else {}))

    def materialise(self, root, *, names, data):
        """Write a state out as real files."""
        for name in sorted(names):
            path, number = Path(root) / name, names[name]
            if str(Path(name).parent) not in (".", *names):
                continue  # a file in a folder that was lost
            if number is None:
                path.mkdir()
            else:
                path.write_bytes(data.get(number, b""))

    def _note(self, number, mark):
        pass

    def _open_file(self, number, path, empty):
        if path not in self.names:
            self.names[path] = number
            self.data[number] = b""
        elif empty:
            self.data[self.names[path]] = b""
        self._opened[number] = self.names[path]

    def _write(self, number, file, data, offset, torn=False):
        file = self._opened[file]
        data = data[: len(data) // 2] if torn else data
        old = self.data[file].ljust(offset, b"\0")
        self.data[file] = old[:offset] + data + old[offset + len(data) :]

    def _truncate(self, number, file, size):
        file = self._opened[file]
        self.data[file] = self.data[file][:size].ljust(size, b"\0")

    def _sync(self, number, file):
        file = self._opened[file]
        self.synced_data[file] = self.data[file]

    def _replace(self, number, source, target):
        self.names[target] = self.names.pop(source)

    def _unlink(self, number, path):
        self.names.pop(path, None)

    def _make_folder(self, number, path):
        self.names[path] = None

    def _remove_folder(self, number, path):
        self.names.pop(path)

    def _sync_folder(self, number, path):
        def inside(name):
            return os.path.dirname(name) == ("" if path == "." else path)

        kept = {name: file for name, file in self.synced_names.items() if not inside(name)}
        self.synced_names = kept | {name: file for name, file in self.names.items() if inside(name)}


def crash_states(start, calls):
    """Yield what a crash before and in every call could leave: ``(n calls done, kind, names, data)``, each once."""
    system = start
    seen = set()
    for number, (name, args) in enumerate([*calls, ("note", ("end",))]):
        states = {
            "kill": (system.names, system.data),
            "power cut, nothing unsynced": (system.synced_names, system.synced_data),
            "power cut, names only": (system.names, system.synced_data),
            "power cut, data only": (system.synced_names, system.data),
        }
        if name == "write" and len(args[1]) > 1:
            whole = dict(system.data)
            system.apply(number, name, args, torn=True)
            states["torn write"] = (dict(system.names), dict(system.data))
            system.data = whole
        for kind, (names, data) in states.items():
            data = {file: data.get(file, b"") for file in names.values() if file is not None}
            state = frozenset((path, file if file is None else data[file]) for path, file in names.items())
            if state not in seen:
                seen.add(state)
                yield number, kind, dict(names), data
        system.apply(number, name, args)
