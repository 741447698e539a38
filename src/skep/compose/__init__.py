"""The Compose Specification, parsed into typed structs with positions; a pure library."""
