"""Scripts that measure the project; benchmarks/README.md lists them."""
