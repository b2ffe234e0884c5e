#!/usr/bin/env python3
"""Writes notices.jsonl: what seven services might say of themselves over three days, often twice.

Our own text, dedicated to the public domain (CC0). The same lines every time.
"""
import datetime
import json
import pathlib

SERVICES = ["north", "south", "east", "west", "river", "delta", "spring"]
NOTICES = [
    "the water of the river is near the line",
    "the stream is fast and the bed is deep",
    "one small model is slow to answer",
    "two large models are slow to answer",
    "the old text was replaced by a new one",
    "three birds sat on the red line",
    "the flow of data stopped for a minute",
    "no flow came from the far cluster",
    "the disk of the green machine is full",
    "a cat walked over the keyboard, all is well",
]
ENDINGS = ["", "", " again", " now", ", we look into it"]

start = datetime.datetime(2025, 3, 1, tzinfo=datetime.timezone.utc)
lines = []
state = 7
for number in range(420):
    state = (state * 1103515245 + 12345) % 2**31
    service = SERVICES[state // 7919 % len(SERVICES)]
    notice = NOTICES[state // 104729 % len(NOTICES)] + ENDINGS[state // 1299709 % len(ENDINGS)]
    at = start + datetime.timedelta(minutes=10 * number)
    lines.append(json.dumps({"id": number, "service": service, "at": at.strftime("%Y-%m-%dT%H:%M:%SZ"), "text": notice}))
pathlib.Path(__file__).with_name("notices.jsonl").write_text("\n".join(lines) + "\n")
print(len(lines))
