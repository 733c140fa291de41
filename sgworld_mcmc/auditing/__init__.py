"""Audit anybody's draws from a NumPyro model's posterior."""

from sgworld_mcmc.auditing.audit import audit
from sgworld_mcmc.auditing.audit_report import AuditReport
from sgworld_mcmc.auditing.read_draws import Unconstrained

__all__ = ["AuditReport", "Unconstrained", "audit"]
