"""The images of one host: blobs, layers unpacked once, pulls, imports, builds."""
