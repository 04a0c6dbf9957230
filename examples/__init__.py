"""Scripts to start from; the tests run every one of them against a real service."""
