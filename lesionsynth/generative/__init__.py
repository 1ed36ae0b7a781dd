"""Models that learn lesions and images. Torch and MONAI are imported here and nowhere else, and never early.

What needs no torch (:mod:`checkpoint`, :mod:`codes`, :mod:`crops`, :mod:`specs`) imports none.
"""
