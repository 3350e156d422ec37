"""What the tests' server of processes does once, after its imports, for all that it forks."""

import gc
import os

from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa
from tqdm import tqdm

# XNNPACK's partitioner makes these patterns at a process's first export and then keeps them: 4 s.
interval = tqdm.monitor_interval
tqdm.monitor_interval = 0  # its monitor is a thread, and a server with one must not fork
bilinear_2d.get_graphs()
sdpa.get_graphs()
tqdm.monitor_interval = interval

# Or the first full collection of a fork copies all that came with it.
os.register_at_fork(after_in_child=gc.freeze)
