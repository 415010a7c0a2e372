"""What the fault tests of the asynchronous pattern share.

* ``relay``: stands between everybody and SQS; loses, doubles, delays and reorders, and says what it saw
* ``auditor``: looks at each send and delete on its way: is what must be durable by then durable?
* ``ledger``: triggers in the store that write down every claim and every ending, whoever causes them
* ``handler``: the work of a job: a call of the model that is counted there, and an effect under the job's key
* ``triggerer``: waits and dispatches as Airflow's triggerer does
* ``pack``: the processes, started again when they end, and how they are struck
* ``invariants``: every job once, its own reply, one result, one effect, calls within the bound
* ``runner``, ``deaths``, ``mutants``: the command line dying between two steps, or with a mistake that must be caught
* ``scenarios``: what befalls a deployment, for the product and for the mutants alike
"""
