"""The page: one HTML file with its pictures inside, for wide and narrow screens, light and dark; it fetches nothing."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vfrnn.files import write_file

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 52rem; padding: 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem }
figure { margin: 0 } figcaption { margin-top: .4rem }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px }
.table { overflow-x: auto } table { border-collapse: collapse; font-size: .85rem }
td, th { padding: .25rem .8rem .25rem 0; text-align: left; white-space: nowrap; border-bottom: 1px solid #8885 }
@media (prefers-color-scheme: dark) { body { background: #16181b; color: #e6e6e6 } img { filter: brightness(.92) } }
"""


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        name: of its file, without the ending.
        title: its heading.
        caption: how it is read.
        data: the file.
        kind: its format and ending.
    """

    name: str
    title: str
    caption: str
    data: bytes
    kind: Literal["png", "gif"] = "png"


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.data).decode()
    title, caption = html.escape(picture.title), html.escape(picture.caption)
    image = f'<img alt="{title}" src="data:image/{picture.kind};base64,{data}"/>'
    return f'<h2 id="{picture.name}">{title}</h2><figure>{image}<figcaption>{caption}</figcaption></figure>'


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def page(title: str, sentences: Sequence[str], facts: Sequence[Sequence[str]], pictures: Sequence[Picture]) -> str:
    """The page: heading, sentences, the table of facts with its first row as head, and the pictures."""
    heading = html.escape(title)
    text = f"<h1>{heading}</h1>" + _table(facts)
    text += "".join(_figure(picture) for picture in pictures)
    text += '<h2 id="reading">How to read this</h2>'
    text += "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    head = '<meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>'
    # An icon of its own: a browser would ask for one, and log that it is missing.
    head += f'<title>{heading}</title><link rel="icon" href="data:,"/><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{text}</body></html>\n'


def write_page(
    folder: Path, title: str, sentences: Sequence[str], facts: Sequence[Sequence[str]], pictures: Sequence[Picture]
) -> Path:
    """Writes every picture as a file, and the page with all of them inside; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        write_file(folder / f"{picture.name}.{picture.kind}", picture.data)
    path = folder / "index.html"
    write_file(path, page(title, sentences, facts, pictures))
    return path
