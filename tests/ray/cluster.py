"""A Ray cluster of this host: `python cluster.py N` prints its address and its machines' pids, and kills one a line.

A line is the number of the machine, from 0; it is killed without a word to the others, as a power cut does.
"""

import sys

from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
machines = [cluster.add_node(num_cpus=1) for _ in range(int(sys.argv[1]))]
pids = [machine.all_processes["raylet"][0].process.pid for machine in machines]
sys.stdout.write(f"{cluster.address} {' '.join(map(str, pids))}\n")
sys.stdout.flush()
for line in sys.stdin:
    cluster.remove_node(machines[int(line)], allow_graceful=False)
    sys.stdout.write("killed\n")
    sys.stdout.flush()
cluster.shutdown()
