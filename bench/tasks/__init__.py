"""The field's learning benchmarks as reproducible runs: `python -m vfrnn_bench.tasks --help`."""
