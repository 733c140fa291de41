"""A run on one HTML page: summary, pictures, bias report, settings, versions and costs."""

from sgworld_mcmc.report_page.write import write_page

__all__ = ["write_page"]
