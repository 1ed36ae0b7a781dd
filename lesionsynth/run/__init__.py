"""From a recipe and an input to an output: cohort, folds, fits, plan, jobs, ledger, finalize."""
