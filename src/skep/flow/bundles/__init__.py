"""Hot update: flows and plug-in code packed together, named by the hash of their content.

A bundle is pushed (checked in a process of its own, refused with every reason), activated (from then on new
runs use it) and rolled back, while runs go on: each stays with the version that it began with.
"""
