"""Faultline's commands for gdb-multiarch (13 or newer): `help faultline` lists them, docs/debugging.md shows them.

    gdb-multiarch -x src/el2/gdb.py -ex "target remote ..." -ex "faultline load"

What they are made of is in the folder gdb/ beside this file. Needs nothing but gdb's own Python.
"""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "gdb"))

import faultline.commands  # noqa: E402  (it registers them)
