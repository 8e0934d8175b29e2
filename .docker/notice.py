"""Writes the image's NOTICE.txt: what it carries, and on which terms. Run in its environment."""

from importlib.metadata import Distribution, distributions

HEAD = """\
This image carries the SAM Callback Service (MIT licence: /app/LICENSE) and what it needs.

{driver}

Debian's packages: the terms of each are in /usr/share/doc/<package>/copyright.
Python itself: LICENSE.txt in its library's folder, /usr/local/lib/python3*.

The Python packages, each with its licence texts below /app/.venv/lib/python3*/site-packages:
"""
BUNDLED = """\
Microsoft's ODBC Driver 18 for SQL Server is part of the Python package mssql-python-odbc. It is not
under the MIT licence, but under Microsoft's own terms, which are the file
{licence}

Who uses this image accepts them. Who gives it to others (a registry that others may pull from is
enough) must, by section 2 of those terms: give it together with the application, not alone; have
those who get it, and those who pass it on, agree to terms that protect the driver and Microsoft at
least as much; leave Microsoft's notices where they are; and indemnify Microsoft against claims from
the application's distribution or use. The service's authors can do none of that for you.
An image without the driver: docker build --build-arg BUNDLED_DRIVER= ."""
NOT_BUNDLED = """\
Microsoft's ODBC driver is not in this image: it was built with an empty BUNDLED_DRIVER."""
MICROSOFT = "MICROSOFT_ODBC_DRIVER_FOR_SQL_SERVER_LICENSE.txt"


def main() -> None:
    """Print it."""
    installed = sorted(distributions(), key=lambda each: each.name.lower())
    licences = [
        str(path.locate())
        for each in installed
        for path in each.files or []
        if path.name == MICROSOFT and ".dist-info" in str(path)
    ]
    driver = BUNDLED.format(licence=licences[0]) if licences else NOT_BUNDLED
    print(HEAD.format(driver=driver))
    for each in installed:
        print(f"{each.name} {each.version}: {_licence(each)}")
        for path in each.files or []:
            if ".dist-info" in str(path) and path.name.upper().startswith(("LICEN", "COPYING")):
                print(f"    {path}")


def _licence(distribution: Distribution) -> str:
    about = distribution.metadata
    fields = ("License-Expression", "License")
    named = next((about[field] for field in fields if field in about), "")
    classifiers = [
        classifier.removeprefix("License :: ")
        for classifier in about.get_all("Classifier", [])
        if classifier.startswith("License :: ")
    ]
    # Some put the whole text into the field.
    return named if named and "\n" not in named else "; ".join(classifiers) or "see its texts"


if __name__ == "__main__":
    main()
