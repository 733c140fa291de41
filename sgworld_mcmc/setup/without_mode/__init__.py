"""Set-up for thousands of dimensions and for networks, without a mode and without a Hessian.

Chains start at random, each for itself. Scales come from the prior, the spread of curvature and of
batch noise from Lanczos quadrature, and the settings of kinetic dynamics from both (docs/theory.md,
section 5). What a user wants to be right there are functions of the draws, not single weights.
"""
