"""Reads a Maildir: each mail as a line of JSON, in the order of arrival. read.py MAILDIR"""

import email
import email.policy
import json
import pathlib
import sys


def part(one):
    content = one.get_payload(decode=True) or b""
    return {
        "type": one.get_content_type(),
        "charset": one.get_content_charset(),
        "name": one.get_filename(),
        "attached": one.get_content_disposition() == "attachment",
        "text": content.decode("utf-8", "replace"),
        "hex": content.hex() if one.get_content_disposition() == "attachment" else None,
    }


def mail(path):
    read = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    defects = [str(defect) for one in read.walk() for defect in one.defects]
    return {
        "headers": [[name, str(value)] for name, value in read.items()],
        "to": [[to.display_name, to.addr_spec] for to in (read["to"].addresses if read["to"] else ())],
        "type": read.get_content_type(),
        "parts": [part(one) for one in read.walk() if not one.is_multipart()],
        "defects": defects,
        "raw": path.read_bytes().decode("utf-8", "replace"),
    }


folder = pathlib.Path(sys.argv[1], "new")
found = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns) if folder.is_dir() else []
for path in found:
    print(json.dumps(mail(path)))
