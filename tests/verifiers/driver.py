"""Reads cases from standard input and prints, a line each, whether the README's function believed them."""
import base64
import json
import sys

from example import verified

for case in json.load(sys.stdin):
    try:
        verified(case["secret"], case["headers"], base64.b64decode(case["body"]))
        print("believed")
    except Exception:
        print("refused")
