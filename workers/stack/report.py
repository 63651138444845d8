"""What is printed when a stack is up: what listens where, how it is, and how to go on."""

from __future__ import annotations

from workers.stack.paths import CHECKOUT
from workers.stack.stack import Stack


def table(stack: Stack) -> str:
    """One line a process: its state, pid and where it listens."""
    listens = {
        "api": stack.api_url,
        "broker": f"ws://127.0.0.1:{stack.ports.broker}/v1/runtime/link",
        "dev_issuer": f"http://127.0.0.1:{stack.ports.dev_issuer}",
        "gateway": f"http://127.0.0.1:{stack.ports.gateway}",
        "upstream": f"http://127.0.0.1:{stack.ports.scripted}  (scripts, no model)",
        "temporal": f"127.0.0.1:{stack.ports.temporal}  (Web UI http://127.0.0.1:{stack.ports.temporal_ui})",
        "postgres": f"127.0.0.1:{stack.ports.postgres}",
        "valkey": f"127.0.0.1:{stack.ports.valkey}",
        "dockerd": stack.engine.host,
    }
    states = stack.supervision.states()
    if not states:
        return f"  nothing runs in {stack.paths.data}  (make up)"
    rows = [f"  {'process':<26} {'state':<9} {'pid':>8}  listens on"]
    for process in stack.processes():
        state = states.get(process.name)
        name, pid = (state.state, str(state.pid or "-")) if state else ("ABSENT", "-")
        rows.append(f"  {process.name:<26} {name:<9} {pid:>8}  {listens.get(process.name, '')}".rstrip())
    return "\n".join(rows)


def next_steps(stack: Stack) -> str:
    """How the first work item is submitted."""
    awgp = CHECKOUT / ".venv" / "bin" / "awgp"
    return (
        f"\n  Everything is kept in {stack.paths.data}; logs in {stack.paths.log}.\n"
        "  Submit the first work item:\n"
        f"    {awgp} token --user alice\n"
        f"    {awgp} submit -a reconciler -t 'Reconcile March' --kind reconcile --reversibility reversible \\\n"
        "        --effect none -f examples/reconcile/bank_statement.csv -f examples/reconcile/invoices.csv --wait\n"
        f"    {awgp} list\n"
        f"    {awgp} doctor        # when something seems wrong\n"
        "  make down ends all of it; make reset also forgets the data."
    )
