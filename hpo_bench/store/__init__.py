"""Results on disk: one folder a run, written whole or not at all, found again, joined, handed on.

<results_dir>/runs/<run_id>/
    run.json              what was asked for and where it ran; written last, so that its
                          ``complete`` is the commit mark
    final.parquet         one row per repetition
    curves.parquet        one row per (repetition, recorded step)
    trials.parquet        of a search: one row per segment of each trial (`hpo_bench.search.ledger`)
    hypergradients.parquet, final_weights.npz     when asked for
    blocks/               finished blocks of a run that is not complete yet: what a resumed run
                          starts from
<results_dir>/packed/NAME/    many complete runs in a few files (`hpo_bench.store.packed`)
"""
