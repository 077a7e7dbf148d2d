"""Which command lives where. A module is imported only when its command is called."""

from __future__ import annotations

# command -> (module in proxywell.cli, attribute, help's first line)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "refresh": ("refresh", "refresh", "Refresh the pool once, and account for every candidate."),
    "check": ("check", "check", "Check candidates and print verdicts; store nothing."),
    "list": ("members", "list_members", "Show the members of the pool."),
    "random": ("members", "random_member", "Print a member that works now."),
    "export": ("members", "export", "Write the pool as files, atomically."),
    "explain": ("members", "explain", "Tell all that is known about one proxy."),
    "freeze": ("members", "freeze", "Set a member aside by hand."),
    "thaw": ("members", "thaw", "Take back a freeze."),
    "backup": ("members", "backup", "Copy the pool into a file that opens elsewhere."),
    "job": ("job", "job", "Refresh jobs, past and present: list, show, wait, cancel."),
    "worker": ("worker", "worker", "Work on the refresh jobs of a Redis, on any machine."),
    "sources": ("sources", "sources", "The catalogue: list, test, yields."),
    "judge": ("judge", "judge", "Our judge: serve it on a machine of yours."),
    "lab": ("lab", "lab", "The simulated fleet: lists, proxies and judges on loopback."),
    "demo": ("demo", "demo", "Lab, refresh and one request through the pool, in under a minute."),
    "doctor": ("doctor", "doctor", "Examine settings, host and services; name each remedy."),
    "config": ("config", "config", "Settings: show, check, schema."),
}
