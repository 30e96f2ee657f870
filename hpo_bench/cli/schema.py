"""``hpo-bench schema``: what editors need to complete and check yamls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schema(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = Path(
        "schemas"
    ),
) -> None:
    """Write JSON schemas of config.yaml, method, dataset, model and experiment yamls.

    An editor finds one by a line at the top of the yaml:
    # yaml-language-server: $schema=../../schemas/method.schema.json"""
    from hpo_bench.errors import UserError, of_the_system
    from hpo_bench.settings.schema import schemas
    from hpo_bench.store.files import write_json

    for name, content in schemas().items():
        file = out / f"{name}.schema.json"
        try:
            write_json(file, content)
        except OSError as error:
            raise UserError(f"cannot write {file}: {of_the_system(error)}") from None
        print(file)
