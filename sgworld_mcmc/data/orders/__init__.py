"""In which order the batches of a partition are visited: one order in a file.

======================  ====================================================================
``"batches"``           every batch once an epoch, in a fresh random order each epoch
``"examples"``          the same, and the rows are dealt into new batches each epoch
``"symmetric"``         a fresh order, then in the next epoch the same order backward
``"once"``              one random order for ever
``"replacement"``       each batch drawn independently (SGLD)
======================  ====================================================================

All but the last visit every row exactly once an epoch: the noise of the batches then cancels
within the epoch (arXiv:2306.03521; docs/theory.md, section 2).
"""
