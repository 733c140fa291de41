"""The deliberate faults of ``make mutations`` have their places in the code as it is now."""

from pathlib import Path

import pytest
from check import mutated
from faults import FAULTS

import sgworld_mcmc


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_has_exactly_one_place(fault):
    text = (Path(sgworld_mcmc.__file__).parent / fault.file).read_text()
    assert mutated(text, fault) != text
