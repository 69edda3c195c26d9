"""Apply a retention schedule: check the schedule, record events, and plan and apply disposals."""
