"""Speed, each time against a named peer in the same run. ``python -m benchmarks`` lists and runs them."""
