"""The nouns of the cloud: ids, specifications, states, errors.  Imports nothing of ours."""
