"""A whole swarm on one machine: data, processes, a live table, and a report.

`main` is the order of events; the other modules know one thing each: `options` the command line, `data` the
texts, `processes` starting and stopping, `table` the terminal, `report` report.json, `page` report.html.
Python 3.9 or later, standard library only.
"""
