"""Prints the ten slowest tests, from the JUnit files of pytest's runs."""

import sys
from xml.etree import ElementTree as ET

cases = [
    (float(case.attrib["time"]), f"{case.attrib['classname']}::{case.attrib['name']}")
    for path in sys.argv[1:]
    for case in ET.parse(path).iter("testcase")  # noqa: S314 - pytest wrote it
]
for seconds, name in sorted(cases, reverse=True)[:10]:
    print(f"{seconds:7.1f} s  {name}")
