"""The console: pages rendered on the server, over the flows that the command line calls.

`routes.console_routes` is all that a server needs. A page is a function of a `PageRequest`, declared in `routes.ROUTES`
with its action; its template extends `templates/base.html.jinja`.
"""
