"""What others wrote is shown as it is, and can do nothing to the terminal or the page."""

import io

import pytest
from rich.table import Table

from tossctr import progress
from tossctr.commands.options import print_result, stdout
from tossctr.errors import UserError
from tossctr.printable import printable
from tossctr.progress import PlainConsole, say

NAMES = ["rate[seq x city]", "[/red]", "a/[/b]/c", "[bold]x[/bold]", ":smile:", "[link=x]y[/link]"]
ESCAPES = "\x1b[31mred\x07 \u202egnp.exe \x9b1m \u2028"


@pytest.mark.parametrize("name", NAMES)
def test_markup_in_names_is_text(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    say(f"read {name}")
    assert capsys.readouterr().err == f"read {name}\n"
    print_result({name: name}, False, name)
    assert capsys.readouterr().out.count(name) == 3
    drawn = io.StringIO()
    console = PlainConsole(drawn)
    table = Table(name, title=name, caption=name)
    table.add_column(name, footer=name)
    table.add_row(name, name)
    console.print(table)
    assert drawn.getvalue().count(name) >= 5


def test_control_characters_are_written_as_their_codes(capsys):
    say(f"read {ESCAPES}")
    shown = capsys.readouterr().err
    assert "\\x1b[31mred\\x07 \\u202egnp.exe \\x9b1m \\u2028" in shown
    assert "\x1b" not in shown
    print_result({ESCAPES: ESCAPES}, False, ESCAPES)
    assert "\x1b" not in capsys.readouterr().out
    line = UserError(ESCAPES, file=ESCAPES, column=ESCAPES, value=ESCAPES, remedy=ESCAPES).line()
    assert not set(line) & set("\x1b\x07\u202e\x9b\u2028")
    assert printable("tab\tnewline\n한국어 \u200d") == "tab\tnewline\n한국어 \u200d"


def test_a_file_name_that_is_not_text_can_be_printed(capsys):
    say("read \udcff.csv")
    assert "\\udcff.csv" in capsys.readouterr().err


def test_a_bar_shows_names_as_they_are(monkeypatch):
    drawn = io.StringIO()
    console = PlainConsole(drawn)
    console._force_terminal = True
    monkeypatch.setattr(progress, "console", console)
    with progress.track("score [/red]\x1b[31m.csv", 3) as advance:
        advance(3)
    assert "score [/red]\\x1b[31m.csv" in drawn.getvalue()
    assert stdout._markup is False
