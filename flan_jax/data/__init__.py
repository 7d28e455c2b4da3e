"""Token cache, mixtures, packing and the batch loader; NumPy only.

Tokenised examples are written once by prepare (the only module here that imports SeqIO) and read
through memory maps by the trainer. Models, losses and devices are left to the other packages.
"""
