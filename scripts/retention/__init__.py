"""Keep documents as a retention schedule says: check the schedule, record events, plan and apply disposals."""
