"""A job that runs by itself. A run with an exit status other than 0 has failed."""
import datetime
import os
import sys

day = os.environ.get("DAY") or datetime.date.today().isoformat()
try:
    date = datetime.date.fromisoformat(day)
except ValueError:
    sys.exit(f"{day!r} is no day")
print("the report of", date)
