"""`Instrument`, and the instruments that come with greenctx: traces, statistics, timelines."""
