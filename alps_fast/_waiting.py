"""How long threads spin before they sleep: said to OpenMP before torch loads it, since afterwards it can no longer be said.

GNU OpenMP's threads spin for milliseconds at the end of every parallel part. Where another process wants their core, the thread
that they wait for is the one that does not get it: a run beside another one took 14 times the time of one thread alone. With a
thousand turns, tens of microseconds, it takes 1.1 times that, and a run alone no longer (`python -m alps_fast.bench.neighbours`).
"""

import os
import sys

if "torch" not in sys.modules and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"
