"""One module per change of the schema, in the order of their numbers. A module that was released never changes."""
