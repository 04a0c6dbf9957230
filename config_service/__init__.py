"""The configuration service: versioned JSON documents, sealed for each reader. See ``docs/ARCHITECTURE.md``."""
