"""The kinds of gradient that are computed from a minibatch. Each file has one kind.

All are estimates of the gradient of the log density of all rows in the sampler's coordinates z,
whose origin is the center (docs/theory.md, section 2.3). With g(z) the gradient of all rows,
g_b(z) that of a batch and J, J_b their Jacobians at the origin:

===================  ==========================================
``plain``            g_b(z)
``control_variate``  g_b(z) - g_b(0) + g(0)
``taylor``           g_b(z) - g_b(0) - J_b z + g(0) + J z
===================  ==========================================
"""
