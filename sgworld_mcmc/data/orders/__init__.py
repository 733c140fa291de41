"""The orders in which an epoch visits the batches of a partition. Each file has one order.

======================  ====================================================================
``"batches"``           every batch once an epoch, in a fresh random order each epoch
``"examples"``          the same, and the rows are dealt into new batches each epoch
``"symmetric"``         a fresh order, then in the next epoch the same order backward
``"once"``              one random order for all epochs
``"replacement"``       each batch drawn independently (SGLD)
======================  ====================================================================

All but the last visit every row exactly once in an epoch, so that the noise of the batches cancels
within the epoch (arXiv:2306.03521; docs/theory.md, section 2).
"""
