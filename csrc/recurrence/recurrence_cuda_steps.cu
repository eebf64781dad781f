// recurrence
