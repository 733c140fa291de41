"""The integrators, which make a step from the gradient of a minibatch. Each file has one."""
