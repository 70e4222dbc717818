"""scripts/bench/run --help is the manual; this folder is the package that it runs."""
