"""The embedded stack: sets up, starts and ends the whole control plane on one machine.

`python -m workers.stack setup|up|down|reset|status|demo`; tests start private ones with `workers.stack.stack.Stack`.
"""
