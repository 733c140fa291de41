"""Data that do not fit in memory: where rows lie on a disk, and how they get to the chains.

===================  =====================================================================
:mod:`.source`       what can be read: the :class:`~.source.Source` protocol and its leaves
:mod:`.arrays`       arrays that are sliced: NumPy memory maps, HDF5, Zarr
:mod:`.parquet`      Parquet files, through pyarrow
:mod:`.items`        data sources of Grain, whose items are the fields of single rows
:mod:`.arguments`    which arguments of a run are streamed, and which are read
:mod:`.rows`         the rows of all sources together
:mod:`.grid`         how a file is cut into blocks, chunks and batches
:mod:`.chunk`        the batches of one chunk, a Feed
:mod:`.chunks`       the chunks of epoch after epoch, read ahead by a thread
:mod:`.portions`     the loop's side: which chunk the chains are in
===================  =====================================================================
"""
