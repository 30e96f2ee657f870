"""The pages of the repository, taken apart into what a reader would type, run, open or look up.

A fenced block of ``bash`` has a command a line; a line that ends in a backslash goes on. A table
whose rows begin with a command of ours is read likewise. What stands behind ``#``, or in the rest
of a row, is the command's remark.

A fenced block after a line such as "It goes in by a yaml, `mine/model/net.yaml`:" is the content of
that file. Other blocks of ``python`` are programs.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PLACES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md")
PAGES = tuple(path for path in (*_PLACES, *sorted((ROOT / "docs").rglob("*.md"))) if path.is_file())
FOLDERS = ("configs", "docs", "hpo_bench", "hydra_plugins", "scripts", "tests")
PROGRAMS = ("hpo-bench", "python", "python3", "make", "pip", "source")

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SHOWN_FILE = re.compile(r"`([\w./-]+\.(?:yaml|py))`[^`\n]*:\n\n\Z")
ROW = re.compile(r"\| `(hpo-bench [^`]+)` \|(.*)")
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
NOT_RUN = re.compile(r"\b(needs?|minutes?|hours?)\b")
MODULE = re.compile(r"\w+(\.\w+)+")
FILE = re.compile(r"[\w./-]*\w\.(py|c|h|sh)")
DATA = re.compile(r".*\.(parquet|json|jsonl|npz|csv|yaml|md|html)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        language: what its fence says, or nothing.
        text: without the fences.
        file: which file it shows, or nothing.
    """

    language: str
    text: str
    file: str


@dataclass(frozen=True)
class Command:
    """A command as it stands in a page.

    Args:
        line: without its remark.
        remark: what the page says of it.
    """

    line: str
    remark: str = ""

    @property
    def words(self) -> list[str]:
        """Its words, as a shell takes it apart, without an ellipsis and an option that has one."""
        return shlex.split(re.sub(r"(--[\w-]+ )?…", "", self.line))

    @property
    def is_run(self) -> bool:
        """Whether it needs nothing and takes no minutes, by its remark."""
        return NOT_RUN.search(self.remark) is None


@dataclass(frozen=True)
class Page:
    """One page.

    Args:
        path: where it is.
    """

    path: Path

    @property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """All of it but the fenced blocks."""
        return FENCE.sub("", self.text)

    @property
    def spans(self) -> list[str]:
        """What its sentences and tables have between backticks."""
        return SPAN.findall(self.prose)

    @property
    def parts(self) -> list[Block | Command]:
        """Fenced blocks, and commands of tables, in their order."""
        parts: list[Block | Command] = []
        end = 0
        for fence in FENCE.finditer(self.text):
            parts += _rows(self.text[end : fence.start()])
            shown = SHOWN_FILE.search(self.text[: fence.start()])
            parts.append(Block(fence[2], fence[3], shown[1] if shown else ""))
            end = fence.end()
        return parts + _rows(self.text[end:])

    @property
    def blocks(self) -> list[Block]:
        """Fenced blocks, in their order."""
        return [part for part in self.parts if isinstance(part, Block)]

    @property
    def commands(self) -> list[Command]:
        """Every command: of blocks, of tables, and within sentences."""
        known = tuple(f"{program} " for program in PROGRAMS)
        commands = [Command(span) for span in self.spans if span.startswith(known)]
        for block in self.blocks:
            commands += commands_of(block)
        return commands

    @property
    def shown_files(self) -> dict[str, str]:
        """The content of each file that it shows, by name."""
        return {block.file: block.text for block in self.blocks if block.file}

    @property
    def words(self) -> set[str]:
        """The words of its code: in blocks and between backticks."""
        code = [*self.spans, *(block.text for block in self.blocks)]
        return {word for text in code for word in re.split(r"[\s,:;'\"{}()]+", text)}

    @property
    def links(self) -> list[str]:
        """Targets of links and pictures, but those on the net."""
        targets = [link or picture for link, picture in LINK.findall(self.prose)]
        return [target for target in targets if not re.match(r"https?://", target)]

    @property
    def anchors(self) -> set[str]:
        """What a link may name after ``#``: headings as GitHub and MyST write them."""
        headings = [heading.lower() for heading in HEADING.findall(self.prose)]
        return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def _rows(prose: str) -> list[Command]:
    rows = [ROW.match(line) for line in prose.splitlines()]
    return [Command(row[1], row[2]) for row in rows if row]


def commands_of(block: Block) -> list[Command]:
    """The commands of a block of ``bash``; none of another."""
    commands = []
    if block.language == "bash":
        for line in block.text.replace("\\\n", " ").splitlines():
            command, _, remark = line.partition(" # ")
            if command.strip():
                commands.append(Command(" ".join(command.split()), remark))
    return commands


# --- what there is ---


@cache
def sources() -> tuple[Path, ...]:
    """The files of the repository that pages speak of."""
    found: list[Path] = []
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    return tuple(found)


@cache
def rooms() -> frozenset[str]:
    """Folders of modules in the package."""
    return frozenset(file.parent.name for file in (ROOT / "hpo_bench").glob("*/__init__.py"))


def wrong_names(words: set[str]) -> Iterator[str]:
    """Modules, files and folders among these words that are not there."""
    for word in words:
        if FILE.fullmatch(word):
            is_there = any(path.as_posix().endswith(f"/{word}") for path in sources())
        elif _is_of_the_package(word):
            is_there = _is_name(word.removeprefix("hpo_bench.").split("."))
        elif word.startswith(tuple(f"{folder}/" for folder in FOLDERS)) and word.islower():
            is_there = (ROOT / word).exists()
        else:
            continue
        if not is_there:
            yield word


def _is_of_the_package(word: str) -> bool:
    """Whether it looks like a module of ours: ``hpo_bench.core.loop`` or ``core.loop``."""
    if not MODULE.fullmatch(word) or DATA.fullmatch(word):
        return False
    return word.partition(".")[0] in {"hpo_bench", *rooms()}


def _is_name(parts: list[str]) -> bool:
    """Whether there is a module ``a.b.c``, or a module ``a.b`` that has a ``c``."""
    below = (ROOT / "hpo_bench").joinpath(*parts)
    if _module(below) is not None:
        return True
    module = _module(below.parent)
    return module is not None and parts[-1] in _names(module)


def _module(place: Path) -> Path | None:
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


def _names(module: Path) -> set[str]:
    """What a module defines or imports, and what it maps by name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.Name(id=name):
                names.add(name)
            case ast.Constant(value=str(name)) | ast.alias(asname=str(name)) | ast.alias(name=name):
                names.add(name)
    return names
