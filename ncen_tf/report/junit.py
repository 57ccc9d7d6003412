"""Gate checks as JUnit XML, which CI servers show."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ncen_tf.base.files import replacing
from ncen_tf.report.gate import Check


def write_junit(file: Path, checks: Sequence[Check]) -> None:
    """Write one test case a check, at once; a missed threshold is a failure."""
    failures = str(sum(not check.passed for check in checks))
    counts = {"name": "ncen_tf.gate", "tests": str(len(checks)), "failures": failures, "errors": "0"}
    suites = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(suites, "testsuite", counts)
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname="ncen_tf.gate", name=check.name)
        if not check.passed:
            ElementTree.SubElement(case, "failure", message=check.message).text = check.message
    ElementTree.indent(suites)
    with replacing(file) as temporary:
        ElementTree.ElementTree(suites).write(temporary, encoding="utf-8", xml_declaration=True)
