"""How fast, in how little memory, and beside what: `python -m benchmarks`, which `make bench` runs."""
