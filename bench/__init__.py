"""Benchmarks: two registries, workloads and providers, and what measures them."""
