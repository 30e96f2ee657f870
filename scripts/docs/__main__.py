"""Build the site: python scripts/docs [--keep].

It lies in ``build/site/html`` and opens from disk. Everything is made anew, and examples are run
again; with ``--keep`` only what has changed. A warning, a broken example, something public that is
not documented, or a dead link ends it with exit code 1.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import links
import sources

BUILD = sources.ROOT / "build" / "site"


def main(arguments: list[str]) -> None:
    """Build the site, or say in what it is wrong."""
    if set(arguments) - {"--keep"}:
        sys.exit((__doc__ or "").strip())
    if "--keep" not in arguments:
        shutil.rmtree(BUILD, ignore_errors=True)
    source, html = BUILD / "source", BUILD / "html"
    sources.lay_out(source)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    done = subprocess.run([*command, "-d", str(BUILD / "cache"), str(source), str(html)])
    if done.returncode:
        sys.exit(done.returncode)
    wrong = links.dead(html)
    if wrong:
        sys.exit("\n".join(["dead links:", *(f"  {line}" for line in wrong)]))
    print(f"the site is {Path(html / 'index.html').relative_to(sources.ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
