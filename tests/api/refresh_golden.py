"""Write the golden OpenAPI document anew: `python -m tests.api.refresh_golden`."""

from pathlib import Path

from skep.api.openapi import document

if __name__ == "__main__":
    Path(__file__).with_name("golden").joinpath("openapi.json").write_bytes(document() + b"\n")
