"""Write a figure so that it can be drawn again bit for bit.

Its files are the plotted points (CSV), the images, and a manifest (JSON)."""

from __future__ import annotations

import hashlib
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hpo_bench import __version__, figures
from hpo_bench.errors import UserError, nearest
from hpo_bench.figures.common import style
from hpo_bench.figures.common.base import RULES, Options, Plotted, Points
from hpo_bench.store.files import atomic, write_json

FORMAT = 1
DIGITS = 7  # of the points: as many as float32 has, more than any image shows
TEXT_COLUMNS = ("part", "panel", "dataset", "method", "hyperparameter", "kind", "status", "text")
PACKAGES = ("matplotlib", "numpy", "pandas", "scipy", "scikit-learn")
IDENTIFIERS = ("name", "method", "dataset")  # by which parts of a figure's context are found
MANIFEST_KEYS = (  # without which a figure cannot be drawn again
    "format",
    "figure",
    "name",
    "csv",
    "csv_sha256",
    "context",
    "footer",
    "formats",
    "versions",
)


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Refuse formats that are not `style.FORMATS`.

    Raises:
        UserError: names what is allowed.
    """
    for name in formats:
        if name not in style.FORMATS:
            raise UserError(f"--format {name}: {nearest(name, style.FORMATS)}")
    if not formats:
        raise UserError(f"--format: needs at least one of {', '.join(style.FORMATS)}")
    return tuple(dict.fromkeys(formats))


def footer(points: Points, options: Options) -> str:
    """The small print of a figure: how its numbers were made."""
    lines = list(points.statistics)
    if points.runs and points.by_mode:
        lines.insert(0, RULES[options.statistics])
    return " · ".join(lines)


def write(
    figure: str, name: str, points: Points, options: Options, out: Path, formats: Sequence[str]
) -> list[Path]:
    """Write the files of one figure; each appears whole or not at all, the manifest last.

    Args:
        figure: the module's name.
        name: of the files, without suffix.
        out: folder, made if need be.

    Returns:
        the images, in the order of ``formats``, then the CSV and the manifest.
    """
    content = csv_bytes(points.frame)
    runs = [
        {"run_id": run.run_id, "config_hash": run.config_hash, "repetitions": len(run.seeds)}
        for run in points.runs
    ]
    document = {
        "format": FORMAT,
        "figure": figure,
        "name": name,
        "title": figures.find(figure).TITLE,
        "csv": f"{name}.csv",
        "csv_sha256": hashlib.sha256(content).hexdigest(),
        "formats": list(formats),
        "footer": footer(points, options),
        "statistics": {
            "mode": options.statistics,
            "details": list(points.statistics),
            "resamples": options.resamples,
            "seed": options.seed,
            "confidence": options.confidence,
        },
        "context": points.context,
        "runs": runs,
        "notes": list(points.notes),
        "versions": versions(),
    }
    return _write(figure, document, content, out, formats)


def redraw(manifest: Path, out: Path, formats: Sequence[str] = ()) -> tuple[list[Path], list[str]]:
    """Draw a figure again from its manifest and the CSV beside it: no store is read.

    Args:
        formats: those of the manifest by default.

    Returns:
        the files, and which packages have other versions now than then (the images may then
        differ).

    Raises:
        UserError: the manifest or the CSV is missing, damaged, or one does not belong to the other.
    """
    document = _read_manifest(manifest)
    file = manifest.parent / document["csv"]
    content = _read_bytes(file)
    if hashlib.sha256(content).hexdigest() != document["csv_sha256"]:
        raise UserError(f"{file}: is not the file that {manifest.name} describes (SHA-256 differs)")
    wanted = tuple(formats) or tuple(document["formats"])
    document["formats"] = list(wanted)
    today = versions()
    changed = [
        f"{package} {then} -> {today.get(package)}"
        for package, then in document["versions"].items()
        if today.get(package) != then
    ]
    return _write(figures.resolve(document["figure"]), document, content, out, wanted), changed


def _write(
    figure: str, document: dict[str, Any], content: bytes, out: Path, formats: Sequence[str]
) -> list[Path]:
    """Draw from what will be on disk, so that drawing again starts from the very same numbers."""
    plotted = Plotted(read_csv(content), document["context"], document["footer"])
    written = []
    try:
        for name, image in images(figure, plotted, formats).items():
            written.append(_write_bytes(out / f"{document['name']}.{name}", image))
        written.append(_write_bytes(out / document["csv"], content))
        write_json(out / f"{document['name']}.json", document)
    except OSError as error:
        raise UserError(f"cannot write figures to {out}: {error.strerror or error}") from None
    return [*written, out / f"{document['name']}.json"]


def images(figure: str, plotted: Plotted, formats: Sequence[str]) -> dict[str, bytes]:
    """The figure in each format, without dates."""
    with style.style():
        sheet = draw(figure, plotted)
        contents = {}
        for name in formats:
            buffer = io.BytesIO()
            sheet.savefig(buffer, format=name, metadata=style.METADATA[name])
            contents[name] = buffer.getvalue()
    return contents


def draw(figure: str, plotted: Plotted) -> Figure:
    """The figure, laid out."""
    with style.style():
        drawn = figures.find(figure).draw(replace(plotted, context=_as_text(plotted.context)))
        style.lay_out(drawn)
    return drawn


def _as_text(context: Any) -> Any:
    """What a figure knows of its runs, for Matplotlib.

    Labels are no formulas, whatever dollars are in them.
    """
    if isinstance(context, Mapping):
        texts = {key: _as_text(value) for key, value in context.items() if key not in IDENTIFIERS}
        return {**context, **texts}
    if isinstance(context, list | tuple):
        return [_as_text(value) for value in context]
    return context.replace("$", r"\$") if isinstance(context, str) else context


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """Points as CSV, floats rounded to `DIGITS` significant digits."""
    return frame.to_csv(index=False, lineterminator="\n", float_format=_short).encode()


def _short(number: object) -> str:
    """The shortest text that reads back as the number rounded to `DIGITS` digits."""
    return repr(float(f"{number:.{DIGITS}g}"))


def read_csv(content: bytes) -> pd.DataFrame:
    """Read what `csv_bytes` wrote, to the last digit.

    Numbers are rounded as Python does it, whatever the default of pandas is.
    """
    frame = pd.read_csv(io.BytesIO(content), dtype=object, keep_default_na=False)
    for column in frame.columns:
        if column not in TEXT_COLUMNS:
            frame[column] = _numbers(frame[column].to_numpy())
    return frame


def _numbers(texts: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers where all are whole, else floats; NaN for nothing."""
    try:
        return texts.astype(np.int64)
    except ValueError:
        return np.where(texts == "", "nan", texts).astype(np.float64)


def versions() -> dict[str, str]:
    """Versions of what decides the bytes of a figure."""
    packages = {name: version(name) for name in PACKAGES}
    return {"hpo-bench": __version__, "python": platform.python_version(), **packages}


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(_read_bytes(path))
    except ValueError as error:
        raise UserError(f"{path}: is not a figure's manifest ({error})") from None
    keys = document if isinstance(document, Mapping) else {}
    for key in MANIFEST_KEYS:
        if key not in keys:
            raise UserError(f"{path}: is not a figure's manifest (it lacks {key!r})")
    if document["format"] != FORMAT:
        raise UserError(
            f"{path}: format {document['format']} is from another version of hpo-bench; "
            f"known: {FORMAT}"
        )
    for name in (document["csv"], document["name"]):
        if Path(name).name != name:
            raise UserError(f"{path}: names files in another folder")
    return dict(document)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _write_bytes(path: Path, content: bytes) -> Path:
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return path
