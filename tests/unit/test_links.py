"""Links between the documents lead to files, and to headings, that there are; so do the names of files."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]


def test_each_link_of_the_documents_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    dead = [
        f"{page.relative_to(ROOT)}: {target}" for page in pages for target in links(page) if not leads(page, target)
    ]
    assert not dead, "\n".join(dead)


def test_each_page_can_be_reached_from_the_index() -> None:
    seen, todo = set(), [ROOT / "docs/README.md"]
    while todo:
        page = todo.pop()
        seen.add(page)
        found = {(page.parent / target.partition("#")[0]).resolve() for target in links(page) if ":" not in target}
        todo += [each for each in found if each.suffix == ".md" and each.exists() and each not in seen]
    assert set((ROOT / "docs").rglob("*.md")) <= seen


def test_each_file_that_the_documents_name_is_there() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    named = {
        f"{page.relative_to(ROOT)}: {name}": name
        for page in pages
        if page.name != "CHANGELOG.md"  # it tells of files that are gone
        for name in re.findall(r"`((?:bridge|tests|deploy|docs|benchmarks)/[^`\s]*)`", page.read_text("utf-8"))
        if "node_modules" not in name
    }
    assert not [where for where, name in named.items() if not list(ROOT.glob(name))]


def links(page: Path) -> list[str]:
    inline = [token for token in MarkdownIt().enable("table").parse(page.read_text("utf-8")) if token.type == "inline"]
    found = [child.attrs["href"] for token in inline for child in token.children or [] if child.type == "link_open"]
    return [str(each) for each in found]


def leads(page: Path, target: str) -> bool:
    if re.match(r"[a-z]+:", target):
        return True
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    return file.exists() and (not anchor or anchor in anchors(file))


@cache
def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and the site make them."""
    tokens = MarkdownIt().parse(page.read_text("utf-8"))
    titles = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
