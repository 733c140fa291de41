"""The coordinates z in which a chain moves, theta = center + K z: one kind in a file.

K K^T estimates the posterior covariance, so that the curvature in z is about one and step sizes are
dimensionless (docs/theory.md, section 2.3).
"""
