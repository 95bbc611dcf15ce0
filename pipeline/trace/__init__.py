"""Tracers: an index map becomes outlines.

A tracer is any function of this package that takes an `IndexMap` and gives a `Tracing`. The writers know nothing else
of it, so one tracer can take another's place.
"""
