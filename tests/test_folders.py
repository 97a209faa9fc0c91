"""What we made is known from what users own, and a kill between two steps loses nothing."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from tossctr import files
from tossctr.errors import UserError
from tossctr.files import locked, whole_file
from tossctr.folders import (
    find_unfinished,
    is_unfinished,
    made_from_of,
    mark,
    new_unfinished,
    put_in_place,
    remove_made,
    whole_files,
    write_made_from,
)
from tossctr.training.checkpoint import write_tensors


class Killed(BaseException):
    pass


def killed_at(patch, owner, name, at):
    """Ends the call at the n-th use of a function, from 0, as a kill would."""
    real, left = getattr(owner, name), [at]

    def step(*args, **options):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return real(*args, **options)

    patch.setattr(owner, name, step)


def test_only_marked_or_empty_folders_are_replaced_or_removed(tmp_path):
    own = tmp_path / "result"
    own.mkdir()
    mark(own, "blend")  # empty: nobody's
    (own / "blend.json").write_text("{}")
    with pytest.raises(UserError, match="TossCTR did not make it"):
        remove_made(own, "run")
    remove_made(own, "blend")
    assert not own.exists()
    own.mkdir()
    (own / "notes").write_text("mine")
    new = new_unfinished(own, "run")
    for change in (
        lambda: mark(own, "run"),
        lambda: remove_made(own, "run"),
        lambda: put_in_place(new, own, "run"),
    ):
        with pytest.raises(UserError, match="already exists"):
            change()
    assert (own / "notes").read_text() == "mine"
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        put_in_place(new, file, "run")
    link = tmp_path / "link"
    link.symlink_to(own)
    with pytest.raises(UserError, match="already exists"):
        put_in_place(new, link, "run")
    assert (own / "notes").exists()


def test_a_partly_removed_folder_is_recognised_and_is_not_a_result(tmp_path, monkeypatch):
    for kill_at in range(6):
        folder = tmp_path / "x.partial"
        mark(folder, "run")
        for name in ("a.npy", "made_from.json", "run.json", "z.npy"):
            (folder / name).write_text("{}")
        try:
            with monkeypatch.context() as patch:
                killed_at(patch, Path, "unlink", kill_at)
                remove_made(folder, "run")
        except Killed:
            left = {path.name for path in folder.iterdir()}
            assert ".tossctr-run" in left
            assert ("made_from.json" in left) == (kill_at == 0)
            next_one = new_unfinished(tmp_path / "x", "run")
            assert next_one.name == ("x.partial" if kill_at else "x.partial.2")
            assert len([*next_one.iterdir()]) == 1
        else:
            assert kill_at == 5
        for path in tmp_path.iterdir():
            shutil.rmtree(path)


@pytest.mark.parametrize("change", [
    lambda text: text.replace("11", "12"),
    lambda text: text.replace('"sha256": "', '"sha256": "0'),
    lambda text: "[1]",
    lambda text: "[" * 100_000,
    lambda text: text[: len(text) // 2],
])  # fmt: skip
def test_a_changed_made_from_is_not_trusted(tmp_path, change):
    made_from = {"seed": 11, "data": {"train": [3, None]}, "rate": 0.1, "é": True}
    folder = new_unfinished(tmp_path / "x", "run")
    write_made_from(folder, made_from)
    assert made_from_of(folder, "run") == made_from
    assert find_unfinished(tmp_path / "x", "run", made_from) == folder
    assert made_from_of(folder, "folds") is None
    file = folder / "made_from.json"
    file.write_text(change(file.read_text()))
    assert made_from_of(folder, "run") is None
    assert find_unfinished(tmp_path / "x", "run", {**made_from, "seed": 12}) is None
    assert new_unfinished(tmp_path / "x", "run") != folder  # it stays


def test_names_of_unfinished_folders():
    names = ["run.partial", "run.partial.2", "run.1.partial.13"]
    assert all(map(is_unfinished, names))
    assert not any(map(is_unfinished, ["partial", "run", "run.2", "partial.2", "run.partially"]))


NAMES = ("a.txt", "b.txt", "c.txt")


def write(folder, text, **options):
    with whole_files(folder, "export", NAMES, **options) as temporary:
        for name in NAMES:
            (temporary / name).write_text(f"{text} {name}")


def texts(folder):
    return {name: (folder / name).read_text() for name in NAMES if (folder / name).exists()}


def test_files_that_belong_together_are_whole_after_any_kill(tmp_path, monkeypatch):
    for kill_at in range(100):
        folder = tmp_path / f"{kill_at}"
        folder.mkdir()
        (folder / "other.txt").write_text("mine")
        write(folder, "old")
        try:
            with monkeypatch.context() as patch:
                killed_at(patch, os, "replace", kill_at)
                write(folder, "new")
        except Killed:
            found = {text.split()[0] for text in texts(folder).values()}
            assert found <= {"old", "new"}
            write(folder, "new")  # what is there is still known to be ours
        else:
            break
        assert texts(folder) == {name: f"new {name}" for name in NAMES}
        assert (folder / "other.txt").read_text() == "mine"
    assert kill_at == 5  # the record, three files, the record


@pytest.mark.parametrize(
    "error",
    [
        lambda file: OSError(28, "No space left on device", str(file)),
        lambda file: UserError("cannot be written", file=file),
    ],
)
def test_an_error_leaves_all_files_as_they_were(tmp_path, error):
    def failing():
        with whole_files(tmp_path, "export", NAMES) as temporary:
            (temporary / "a.txt").write_text("new")
            raise error(temporary / "b.txt")

    write(tmp_path, "old")
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(UserError) as raised:
        failing()
    assert raised.value.line().startswith(str(tmp_path))
    assert ".tmp" not in raised.value.line()
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_files_of_users_are_not_replaced_without_force(tmp_path):
    write(tmp_path, "old")
    (tmp_path / "b.txt").write_text("mine, and of another size")
    with pytest.raises(UserError, match=r"b\.txt: exists, and TossCTR did not write it"):
        write(tmp_path, "new")
    assert texts(tmp_path)["a.txt"] == "old a.txt"
    write(tmp_path, "new", force=True)
    assert texts(tmp_path)["b.txt"] == "new b.txt"


def test_a_lock_writes_to_no_file_but_its_own(tmp_path):
    precious = tmp_path / "thesis.txt"
    lock = tmp_path / ".x.lock"
    precious.write_text("three years")
    for make in (
        lambda: lock.symlink_to(precious),
        lambda: lock.hardlink_to(precious),
        lambda: lock.write_text("three years"),
        lambda: lock.mkdir(),
        lambda: os.mkfifo(lock),
    ):
        make()
        with pytest.raises(UserError, match="is not a lock file of TossCTR"), locked(lock, "it"):
            pytest.fail("held")
        assert precious.read_text() == "three years"
        assert os.path.lexists(lock)
        files.remove(lock)
    lock.symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match="is not a lock file"), locked(lock, "it"):
        pytest.fail("held")
    assert not (tmp_path / "nothing").exists()


HOLD = """
import sys, time
from pathlib import Path
from tossctr.files import locked
file, log = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(40):
    with locked(file, "it", wait=True):
        try:
            log.touch(exist_ok=False)
        except FileExistsError:
            sys.exit(9)
        time.sleep(0.0005)
        log.unlink()
"""


def test_never_two_processes_hold_a_lock_that_is_removed_on_release(tmp_path):
    arguments = [sys.executable, "-c", HOLD, str(tmp_path / ".x.lock"), str(tmp_path / "inside")]
    processes = [subprocess.Popen(arguments, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_files_of_other_machines_and_of_running_processes_are_not_swept(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mine, _ = files.new_temporary(path)  # of this process, which is running
    dead = tmp_path / mine.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-")
    dead.touch()
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    files._machine.cache_clear()
    elsewhere, _ = files.new_temporary(path)
    elsewhere = elsewhere.rename(
        tmp_path / elsewhere.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-")
    )
    monkeypatch.undo()
    files._machine.cache_clear()
    with whole_file(path) as temporary:
        temporary.write_text("{}")
        assert mine.exists()
        assert elsewhere.exists()
        assert not dead.exists()


def test_threads_write_one_file_whole(tmp_path):
    path = tmp_path / "x.txt"
    barrier = threading.Barrier(4)

    def work(number):
        with whole_file(path) as temporary:
            barrier.wait()
            temporary.write_text(f"{number}" * 1000)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in {f"{n}" * 1000 for n in range(4)}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_weights_have_the_permissions_of_new_files(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "model.safetensors", {"a": torch.zeros(3)})
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask
