"""Types and conditions are written as Python expressions: this reads them, hostile ones included."""

import ast
import warnings

LONGEST = 4000
"""Characters."""


def parse(text: str) -> ast.expr:
    """The syntax tree of one expression.

    Raises:
        ValueError: it is none; the message says why.
    """
    if len(text) > LONGEST:
        raise ValueError(f"longer than {LONGEST} characters")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an escape that Python does not know is a mistake here too
        try:
            return ast.parse(" ".join(text.split()), mode="eval").body
        except SyntaxError as error:
            raise ValueError(error.msg) from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise ValueError(str(error) or "nested too deeply") from error
