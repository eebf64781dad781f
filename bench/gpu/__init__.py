"""Benchmarks on a GPU: `run.sh` is the program of one that is there for minutes; cases.py says what is measured."""
