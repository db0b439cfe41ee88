"""`Instrument`, and those that come with greenctx: traces, statistics, timelines."""
