"""Citations lead somewhere: tags to docs/references.md, files and their sections to what there is, links of pages too."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "alps_fast").rglob("*.md")]
FOLDERS = ("alps_fast", "benchmarks", "csrc", "examples", "kernels", "lab", "tests")
SOURCES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")
           if path.suffix in (".py", ".h", ".cpp", ".cu", ".cuh") and path.name != Path(__file__).name]
TAG = re.compile(r"(?<!\w)\[([A-Z]\w*)\](?!\()")
SOURCE = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w/.-]*\w\.(?:py|h|cpp|cu|cuh|json|toml|sh)\b")  # of the repository
# of the page that a link leads to, or a path from the root, else of the page itself; those of papers follow their tag
SECTION = re.compile(r"(?<!\w\] )(?:\]\(([\w./-]+\.md)\) |(\b[\w./-]+\.md) )?§(\d+)(?:(?: and | to |, )(\d+)\b)?")
FILE = re.compile(r"[\w./-]*\b\w+\.md\b(?: §(\d+)(?:(?:, | and |–)(\d+))*)?")


def prose(path: Path) -> str:
    """Docstrings and comments of a source, a page whole; without what stands in backticks."""
    text = path.read_text()
    if path.suffix == ".py":
        holders = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef))
        comments = (t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT)
        text = "\n".join((*(ast.get_docstring(n) or "" for n in holders), *comments))
    elif path.suffix != ".md":
        text = "\n".join(re.findall(r"//.*", text))
    return re.sub(r"`[^`\n]*`", "", text)


def tags(text: str) -> set[str]:
    return set(TAG.findall(text))


def defined() -> set[str]:
    return set(re.findall(r"^\*\*\[(\w+)\]\*\*", (ROOT / "docs/references.md").read_text(), re.M))


def dead(text: str) -> list[str]:
    """Files of documentation that a text names, from the root of the repository, and that are not there or lack the section."""
    found = []
    for match in FILE.finditer(text):
        name, *sections = re.split(r" §|, | and |–", match.group())
        page = ROOT / name
        headings = re.findall(r"^## (\d+)\.", page.read_text(), re.M) if page.exists() else []
        if not page.exists() or not set(sections) <= set(headings):
            found.append(match.group())
    return found


def test_every_tag_is_defined_and_every_definition_is_cited():
    cited = {path: tags(prose(path)) for path in (*SOURCES, *PAGES) if path.name != "references.md"}
    undefined = {str(path): found - defined() for path, found in cited.items() if found - defined()}
    assert not undefined
    assert set().union(*cited.values()) == defined() >= {"ALPS", "XGP", "LM", "EDM", "Philox"}


def test_every_page_that_a_source_names_is_there():
    assert {str(path): found for path in SOURCES if (found := dead(prose(path)))} == {}


def test_every_link_of_a_page_leads_to_a_file():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())]
    assert links and [f"{page}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_every_source_that_is_named_is_there():
    named = {path: set(SOURCE.findall(path.read_text())) for path in (*SOURCES, *PAGES)}
    found = {name for names in named.values() for name in names if "NAME" not in name}
    gone = {name for name in found if not (ROOT / name).exists()}
    assert len(found) > 50 and {str(path): names & gone for path, names in named.items() if names & gone} == {}


def test_every_section_that_a_page_names_is_there():
    for page in PAGES:
        for link, path, *sections in SECTION.findall(page.read_text()):
            there = page.parent / link if link else ROOT / path if path else page
            headings = re.findall(r"^## (\d+)\.", there.read_text(), re.M)
            assert set(sections) - {""} <= set(headings), f"{page}: {there} §{sections}"


@pytest.mark.parametrize("text", ["design.md", "docs/nowhere.md", "docs/design.md §3 and 99", "kernels.md §5"])
def test_a_dead_citation_is_found(text):
    assert dead(f"as in {text}, and so on") == [text]
    assert dead("docs/design.md §3, and docs/gpu.md") == [] and tags("x[None], [LM] and [link](there)") == {"LM"}
