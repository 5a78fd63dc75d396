"""The parts of the benchmark, in the order in which they run."""

from . import callers, coded, cold, connections, dead, entries, fleet, hits, pages, store, tail

PARTS = {
    "hits": hits.run,
    "coded": coded.run,
    "cold": cold.run,
    "dead": dead.run,
    "pages": pages.run,
    "entries": entries.run,
    "connections": connections.run,
    "callers": callers.run,
    "tail": tail.run,
    "store": store.run,
    "fleet": fleet.run,
}
