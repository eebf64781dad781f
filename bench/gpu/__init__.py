"""Benchmarks on a GPU: `run.sh OUTDIR` builds, tests, measures and reports; cases.py says what is measured."""
