"""What a step does with the gradient of a minibatch: one discretisation in a file."""
