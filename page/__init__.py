"""The page of a lab: one HTML file that draws it, walks a packet through it, and lists what must be true of it.

`foreseen` is the lab as its plan says it will be, `model` the page's content as plain values, `picture` the drawings,
`document` the HTML. Nothing here reads a machine.
"""
