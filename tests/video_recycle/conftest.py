"""Models this small are faster on one thread; on a busy machine, several times."""

import torch

torch.set_num_threads(1)
