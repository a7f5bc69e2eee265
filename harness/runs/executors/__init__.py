"""Where units run: in this process (`serial`), in processes of this machine, or on a Ray cluster.

`place.py` says which there are, `starting.py` starts the chosen one. An executor starts one unit and returns a future
of how it ended; what runs when is decided in `harness/runs/execution.py`, how in `harness/runs/doing.py`.
"""
