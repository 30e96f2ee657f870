"""One self-contained HTML page about a store.

`page.write` makes it; `sections` and `drawings` make what is on it."""
