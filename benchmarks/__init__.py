"""Benchmarks: `make bench` prints the tables, `make bench-check` is the regression gate."""
