"""What the fault tests share: a batch as a user has it, the ways to hurt it, and the invariants that must survive.

* ``dataset``: the input, with data in it that must never be seen in a log
* ``batch``: a spec, and runs of the real command line over it
* ``warehouse``: what stands in the table, read without the product
* ``invariants``: every record once, calls within the bound, a clean second run
* ``strace``: a run of the command line under system call fault injection
* ``runner``: the command line with faults at exact places in it, for what a system call cannot name
"""
