"""What users own is never replaced; devices and pipes stay what they are."""

import json
import os
import subprocess
import sys
import threading

import pytest

from tossctr import outputs
from tossctr.errors import UserError
from tossctr.files import write_json
from tossctr.location import same_place
from tossctr.outputs import check_output, is_stream, output_file


def write(path, text, **options):
    with output_file(check_output(path, **options), **options) as temporary:
        temporary.write_text(text)


def test_what_we_wrote_is_replaced_and_what_we_did_not_is_kept(tmp_path):
    path = tmp_path / "out.csv"
    write(path, "one")
    write(path, "two")
    path.write_text("two, and a note of mine")
    with pytest.raises(UserError, match=r"TossCTR did not write it.*--force"):
        write(path, "three")
    assert path.read_text() == "two, and a note of mine"
    write(path, "three", force=True)
    assert path.read_text() == "three"
    write(path, "four")
    other = tmp_path / "mine.csv"
    other.write_text("mine")
    with pytest.raises(UserError, match="TossCTR did not write it"):
        check_output(other)


def test_a_file_created_during_the_write_is_kept(tmp_path):
    path = tmp_path / "out.csv"

    def write_over_a_new_file():
        with output_file(path) as temporary:
            temporary.write_text("ours")
            path.write_text("theirs")

    with pytest.raises(UserError, match="TossCTR did not write it"):
        write_over_a_new_file()
    assert path.read_text() == "theirs"


def test_an_empty_file_is_replaced(tmp_path):
    path = tmp_path / "out.csv"
    path.touch()
    write(path, "one")
    assert path.read_text() == "one"


@pytest.mark.parametrize("at", range(1, 4))
def test_after_a_kill_at_any_write_of_the_record_the_command_can_be_repeated(
    tmp_path, monkeypatch, at
):
    path, calls = tmp_path / "out.csv", []
    write(path, "one")

    def killed(*arguments):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        write_json(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(outputs, "write_json", killed)
        try:
            write(path, "two")
        except KeyboardInterrupt:
            assert path.read_text() in ("one", "two")
    write(path, "two")
    assert path.read_text() == "two"
    record = json.loads((tmp_path / ".out.csv.written").read_text())
    assert len(record["sha256"]) == 1


@pytest.mark.parametrize("content", ["[", "[]", '{"version": 1}', "[" * 100_000])
def test_a_damaged_record_makes_nothing_ours(tmp_path, content):
    path = tmp_path / "out.csv"
    write(path, "one")
    (tmp_path / ".out.csv.written").write_text(content)
    with pytest.raises(UserError, match="TossCTR did not"):
        check_output(path)


def test_an_output_that_is_read_is_refused_even_with_force(tmp_path, monkeypatch):
    data = tmp_path / "test.csv"
    data.write_text("rows")
    os.link(data, tmp_path / "hard.csv")
    (tmp_path / "soft.csv").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    for name in ("test.csv", "hard.csv", "soft.csv", "../" + tmp_path.name + "/test.csv"):
        with pytest.raises(UserError, match="is part of the input"):
            check_output(tmp_path / name, inputs=[data.relative_to(tmp_path)], force=True)
    parts = tmp_path / "parts"
    parts.mkdir()
    with pytest.raises(UserError, match="is part of the input"):
        check_output(parts / "out.csv", inputs=[parts])
    with pytest.raises(UserError, match="is a folder"):
        check_output(parts)


def test_a_link_is_followed_and_kept(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "out.csv"
    link.symlink_to(tmp_path / "real" / "out.csv")
    write(link, "one")
    write(link, "two")
    assert link.is_symlink()
    assert (tmp_path / "real" / "out.csv").read_text() == "two"


def test_devices_and_pipes_are_written_through(tmp_path):
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    write(link, "through")
    reader.join()
    assert found == ["through"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe"]
    write(outputs.Path("/dev/null"), "gone")
    assert is_stream(outputs.Path("/dev/null"))
    out = tmp_path / "stdout"
    with out.open("wb") as file:  # as `--output /dev/stdout > file`: the file stays the same one
        inode = os.fstat(file.fileno()).st_ino
        write(outputs.Path(f"/proc/self/fd/{file.fileno()}"), "to a file")
    assert out.read_text() == "to a file"
    assert out.stat().st_ino == inode


def test_paths_are_compared_after_resolving(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data" / "test.csv"
    path.parent.mkdir()
    path.touch()
    relative = path.relative_to(tmp_path)
    assert same_place(relative, path)
    assert same_place(path.parent / ".." / "data" / "test.csv", path)
    assert same_place(relative.with_name("later.csv"), path.with_name("later.csv"))
    assert not same_place(relative, path.with_name("later.csv"))
    assert same_place("s3://bucket/test", "s3://bucket/test/")
    assert not same_place("s3://bucket/test", path)


def test_a_link_to_itself_is_refused(tmp_path):
    path = tmp_path / "scores.csv"
    path.symlink_to(path.name)
    with pytest.raises(UserError, match=r"scores\.csv: is a link to itself"):
        check_output(path, inputs=[tmp_path / "test.csv"], force=True)
    assert path.is_symlink()
    assert not same_place(path, tmp_path / "test.csv")


@pytest.mark.parametrize("number", [1, 9])
def test_content_of_a_file_behind_stdout_is_kept(tmp_path, number):
    target = tmp_path / "all.csv"
    target.write_text("earlier ")
    code = (
        "from pathlib import Path; from tossctr.outputs import output_file\n"
        f"with output_file(Path('/dev/fd/{number}')) as file: file.write_text('new ')"
    )
    command = '{ "$1" -c "$2"; printf later >&' + f'{number}; }} {number}>> "$3"'
    subprocess.run(["bash", "-c", command, "bash", sys.executable, code, target], check=True)
    assert target.read_text() == "earlier new later"
