"""The posteriors that the tests of this folder go through."""

import pytest
from posteriors import CASES


@pytest.fixture(scope="module", params=list(CASES))
def posterior(request):
    """One exact posterior of each case."""
    return CASES[request.param]()
