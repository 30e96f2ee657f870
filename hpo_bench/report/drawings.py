"""The figures of the page: drawn by the figures package, kept as data URIs."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hpo_bench import figures
from hpo_bench.analysis.selection import Runs
from hpo_bench.errors import UserError
from hpo_bench.figures.common import artefact, places
from hpo_bench.figures.common.base import Options, Plotted
from hpo_bench.figures.common.make import Made, Request, make
from hpo_bench.figures.common.needs import Missing
from hpo_bench.report.facets import Facets

MOST_OUTLINES = 150_000  # characters of an image as outlines
COLOURS = 96  # of an image as pixels
PIXELS_PER_POINT = 1.9  # larger than print: a full page's width is 950 pixels
OUTLINES = re.compile(rb'(?<= d=")[^"]*')
DECIMALS = re.compile(rb"(\.\d\d)\d+")
UNQUOTED = " !$*+,/:;=?@"  # beside letters, digits and -._~
AROUND_LETTERS = re.compile(rb"\s*([MLQCz])\s*")


@dataclass(frozen=True)
class Drawing:
    """A figure, drawn or not.

    Args:
        uri: the image; empty where it was not drawn.
        width: of the image, in CSS pixels.
        drawn: methods, datasets and repetitions on it.
        small_print: how its numbers were made.
        missing: runs that it lacks, with the commands that make them.
        notes: stored runs that were passed over, and why.
        error: why drawing failed.
        run_ids: of the runs that it shows.
        points: the plotted points: a CSV, packed by gzip, as an address.
        places: where they stand on the image (`figures.common.places.of`): JSON, packed by gzip, in
            base64.
        illustration: made without any runs.
        command: draws it as files, with the plotted points.
        about: what it shows, by which the page is filtered.
    """

    name: str
    title: str
    uri: str = ""
    width: int = 0
    drawn: str = ""
    small_print: str = ""
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    illustration: bool = False
    run_ids: tuple[str, ...] = ()
    points: str = ""
    places: str = ""
    command: str = ""
    about: Facets = field(default_factory=Facets)

    @property
    def label(self) -> str:
        """``fig09`` as ``Figure 9``, other names as words."""
        if self.numbered:
            return f"Figure {int(self.name[3:])}"
        return self.name.replace("_", " ").capitalize()

    @property
    def heading(self) -> str:
        """The number of the figure, if it has one, and its title."""
        if self.numbered and self.title:
            return f"{self.label}: {self.title}"
        return self.title or self.label

    @property
    def numbered(self) -> bool:
        """Whether it has a number in the paper."""
        return self.name.startswith("fig") and self.name[3:].isdigit()


def drawings(
    runs: Runs, results: str, options: Options, say: Callable[[str], None] = lambda line: None
) -> list[Drawing]:
    """All figures, each drawn as far as the runs allow.

    One that fails says so and leaves the others alone.

    Args:
        results: the store's folder as the user wrote it.
        say: told about each figure as soon as it is done.
    """
    drawn = []
    with tempfile.TemporaryDirectory(prefix="hpo-bench-") as folder:
        request = Request(results, runs, Path(folder), ("svg", "png"), options)
        for drawing in _each(figures.names(), request):
            say(f"{drawing.name}: {drawing.error or drawing.drawn or 'no stored run fits'}")
            drawn.append(replace(drawing, command=_command(drawing.name, results, options)))
    return drawn


def _each(names: list[str], request: Request) -> Iterator[Drawing]:
    """Go on behind a figure that fails: its error ends the generator that `make` is."""
    done = 0
    while done < len(names):
        try:
            for made in make(names[done:], request):
                drawing = _drawing(made)
                done += 1
                yield drawing
        # Whatever is wrong with one figure, the page is about the others, too.
        except Exception as error:
            yield _failed(names[done], error)
            done += 1


def _failed(name: str, error: Exception) -> Drawing:
    """A figure that could not be drawn, and why."""
    text = " ".join(str(error).split())
    if not isinstance(error, UserError):
        text = f"{type(error).__name__}: {text}"
    title = ""
    with suppress(Exception):  # its module may be what fails
        title = figures.find(name).TITLE
    return Drawing(name, title, error=text)


def _drawing(made: Made) -> Drawing:
    module = figures.find(made.figure)
    plain = Drawing(
        made.figure,
        module.TITLE,
        missing=made.missing,
        notes=made.notes,
        illustration=not module.NEEDS,
    )
    if not made.files:
        return plain
    files = {file.suffix: file for file in made.files}
    image = compact(files[".svg"].read_bytes())
    manifest = json.loads(files[".json"].read_text(encoding="utf-8"))
    content = files[".csv"].read_bytes()
    found = _places(made.figure, manifest, content)
    return replace(
        plain,
        about=_told(found) if module.NEEDS else Facets(),
        uri=_address(image, files[".png"]),
        width=_width(image),
        drawn=made.drawn,
        small_print=manifest["footer"],
        run_ids=tuple(run["run_id"] for run in manifest["runs"]),
        points=f"data:application/gzip;base64,{packed(content)}",
        places=packed(json.dumps(found, separators=(",", ":")).encode()),
    )


def _places(figure: str, manifest: dict[str, Any], content: bytes) -> dict[str, Any]:
    """Where the points of a figure stand on its image."""
    plotted = Plotted(artefact.read_csv(content), manifest["context"], manifest["footer"])
    return places.of(artefact.draw(figure, plotted), plotted)


def _told(found: Mapping[str, Any]) -> Facets:
    """The datasets and methods that stand on the panels of a figure."""
    datasets = dict.fromkeys(panel["dataset"] for panel in found["panels"] if panel["dataset"])
    methods = dict.fromkeys(series["name"] for series in found["series"])
    return Facets(tuple(datasets), tuple(methods))


def packed(content: bytes) -> str:
    """Bytes packed by gzip, in base64; the same bytes whenever it is done."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def data_uri(svg: bytes) -> str:
    """The image as an address that may stand in an attribute; a sixth shorter than in base64."""
    return f"data:image/svg+xml,{quote(svg, safe=UNQUOTED)}"


def _address(svg: bytes, png: Path) -> str:
    """The outlines as an address, or the pixels, where there are very many outlines.

    The page has to stay small; hundreds of curves are sharper than a screen as pixels, too.
    """
    outlines = data_uri(svg)
    if len(outlines) <= MOST_OUTLINES:
        return outlines
    return f"data:image/png;base64,{base64.b64encode(_few_colours(png)).decode()}"


def _few_colours(png: Path) -> bytes:
    """The same image with a palette, a quarter of its bytes."""
    from PIL import Image

    content = io.BytesIO()
    with Image.open(png) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
            content, "PNG", optimize=True
        )
    return content.getvalue()


def compact(svg: bytes) -> bytes:
    """The same picture to a hundredth of a point.

    Outlines, which are most of its bytes, lose further decimals and spaces.
    """

    def shorter(outline: re.Match[bytes]) -> bytes:
        return AROUND_LETTERS.sub(rb"\1", DECIMALS.sub(rb"\1", outline[0]))

    return OUTLINES.sub(shorter, svg)


def _width(svg: bytes) -> int:
    """Width on the page, in CSS pixels, of an image that says its width in points."""
    width = re.search(rb'<svg\b[^>]*\bwidth="([\d.]+)pt"', svg)
    return round(PIXELS_PER_POINT * float(width[1])) if width else 0


def _command(name: str, results: str, options: Options) -> str:
    """The command that draws a figure as files."""
    words = ["hpo-bench", "plot", name]
    if results != "results":
        words += ["--results", results]
    if options.statistics != "default":
        words += ["--stats", options.statistics]
    if options.seed:
        words += ["--seed", str(options.seed)]
    return shlex.join(words)
