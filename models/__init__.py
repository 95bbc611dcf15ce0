"""The studio engine's models: the registry, the volume's store, the loader and one file for each model go here.

Nothing outside this package may import torch.
"""
