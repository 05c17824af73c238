#!/usr/bin/env python3
"""Turns two CSV files of the npm package vega-datasets into line protocol.

    python3 convert.py <package>/data/weather.csv > weather.lp
    python3 convert.py <package>/data/seattle-weather-hourly-normals.csv > normals.lp

One line a row, in the order of the rows. Numbers keep their digits; nothing is rounded, filled in or dropped, except
that the hourly normals end with February, so that all of the data stays below 500 KB.
"""

import csv
import sys
from datetime import datetime, timezone


def nanoseconds(text):
    """The file's dates carry no time zone; they are read as UTC."""
    moment = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    return int(moment.timestamp()) * 1_000_000_000


def tag(text):
    """Line protocol wants backslashes before commas, spaces and equals signs in a tag."""
    for special in "\\, =":
        text = text.replace(special, "\\" + special)
    return text


def daily(row):
    """A row of weather.csv: location,date,precipitation,temp_max,temp_min,wind,weather"""
    return (
        f"weather,location={tag(row['location'])} "
        f"precipitation={row['precipitation']},temp_max={row['temp_max']},temp_min={row['temp_min']},"
        f"wind={row['wind']},condition=\"{row['weather']}\" {nanoseconds(row['date'])}"
    )


def hourly(row):
    """A row of seattle-weather-hourly-normals.csv: date,pressure,temperature,wind"""
    return (
        f"normals,location=Seattle "
        f"pressure={row['pressure']},temperature={row['temperature']},wind={row['wind']} {nanoseconds(row['date'])}"
    )


with open(sys.argv[1], newline="", encoding="utf-8") as file:
    for row in csv.DictReader(file):
        if "weather" in row:
            print(daily(row))
        elif row["date"] < "2010-03":
            print(hourly(row))
