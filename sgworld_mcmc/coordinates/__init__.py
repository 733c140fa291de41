"""The coordinates z in which a chain moves, theta = center + K z. Each file has one kind.

K K^T estimates the posterior covariance, so that the curvature in z is about one and step sizes are
dimensionless (docs/theory.md, section 2.3).
"""
