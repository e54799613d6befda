"""The tree that a terminal shows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from toy import done, extend, toy_search

from thinktime.bench.trace import draw
from thinktime.core.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://host\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("\x1b[2J\x1b[1;1Hover", "over"),
        ("beep\x07 back\x08 return\r null\x00 c1\x9b31m", "beep back return null c131m"),
        ("é ß 答 \u200d", "é ß 答 \u200d"),
        ("ends with \x1b", "ends with "),
        ("\x1bP1;2q a picture\x1b\\text \x1b_an order\x1b\\\x1b(0lines\x1b%G", "text lines"),
        ("\u202e321\u202c \u2066a\u2069 \u200eb\u200f \u061cc", "321 a b c"),
    ],
)
def test_control_characters_and_escapes_of_a_model_do_not_reach_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_tree_shows_what_a_model_wrote_without_escapes_and_without_markup() -> None:
    search = toy_search({"0": done("so \x1b[31m[/red] 7")})
    extend(search, [search.root])
    out = io.StringIO()
    Console(file=out, width=80).print(draw(search))
    assert "so [/red] 7" in out.getvalue() and "\x1b" not in out.getvalue()
