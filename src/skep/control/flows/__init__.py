"""The flows of the cloud (YAML) and their steps."""
