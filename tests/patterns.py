"""The patterns of XNNPACK's partitioner, which a process makes at its first export and then keeps.

The server of processes imports this, so that those that it forks need not: it takes 4 s.
"""

from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa
from tqdm import tqdm

interval = tqdm.monitor_interval
tqdm.monitor_interval = (
    0  # a progress bar's monitor is a thread, and a server with one must not fork
)
bilinear_2d.get_graphs()
sdpa.get_graphs()
tqdm.monitor_interval = interval
