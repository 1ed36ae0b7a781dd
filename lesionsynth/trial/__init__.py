"""Does synthetic data make a segmentation model better? The same network is trained with it and without.

Only `segment` and `augment` need torch.
"""
