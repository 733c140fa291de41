"""Draws as an object of ArviZ, whose functions have other arguments from version 1 on."""

import arviz


def inference_data(draws):
    """Return an ArviZ object whose posterior is a dict of draws (chains, draws, ...) by site."""
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.from_dict(posterior=draws)
    return arviz.from_dict({"posterior": draws})
