"""Publishes to a topic of MNS, keeps what cannot be published, tries that again by the clock, and tells people of what
failed for the fifth time. All of that is in the config: see mns.json.

    python mns.py mns.json send     publishes one message
    python mns.py mns.json retry    tries what is stored, until standard input ends
"""

import sys

import ceiba


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[2] not in ("send", "retry"):
        sys.exit("usage: mns.py CONFIG send|retry")
    ceiba.open_file(sys.argv[1])
    if sys.argv[2] == "retry":
        sys.stdin.read()
    else:
        receipt = ceiba.producer_send("MyTopic", {"task_id": "7", "game_id": "123"})
        if receipt.stored:
            print(f"stored as row {receipt.message_id}: {receipt.warning}")
        else:
            print(f"sent: {receipt.message_id}")
    ceiba.shutdown(timeout=5)


if __name__ == "__main__":
    try:
        main()
    except ceiba.Error as error:
        sys.exit(f"{error.kind}: {error}")
