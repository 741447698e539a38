"""Errors that travel."""

from skep.compose.problems import ComposeError
from skep.model.errors import InvalidInput, NotFound
from skep.model.faults import Fault, error_of, fault_of


def test_an_error_arrives_as_the_kind_it_was_with_its_details() -> None:
    arrived = error_of(fault_of(NotFound("It is gone.", run="r1")))

    assert (type(arrived), arrived.message, arrived.details) == (NotFound, "It is gone.", {"run": "r1"})


def test_what_is_derived_of_a_kind_elsewhere_does_not_take_its_place() -> None:
    assert ComposeError.code == InvalidInput.code

    assert type(error_of(Fault(code="invalid-input", message="No."))) is InvalidInput
