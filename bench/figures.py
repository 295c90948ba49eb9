"""Turns the rows of keyside-bench into verdicts: figures.py ROWS MACHINE [--markdown DOCUMENT].

ROWS holds JSON lines, MACHINE the lines that describe the machine. With --markdown the tables also replace what stands
between the two figure marks of DOCUMENT.
"""

import json
import sys

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def main():
    rows_path, machine_path, *rest = sys.argv[1:]
    with open(rows_path) as file:
        rows = [json.loads(line) for line in file]
    with open(machine_path) as file:
        machine = file.read().splitlines()

    bars, others = figures(rows)
    if not rest:
        print("\n".join(machine))
        print("\n" + text(bars) + "\n\n" + text(others))
        return
    document = rest[1]
    section = "\n".join([*(f"* {line}" for line in machine), "", markdown(bars), "", markdown(others)])
    with open(document) as file:
        before, rest = file.read().split(BEGIN)
    after = rest.split(END)[1]
    with open(document, "w") as file:
        file.write(f"{before}{BEGIN}\n{section}\n{END}{after}")
    print(section)


def figures(rows):
    """Two tables, each with its heading first: what has a bar, and what stands beside it for comparison."""
    load, spawn = {}, {}
    for row in rows:
        # The floors stand in every run; the first one is beside what has a bar.
        if "target" in row:
            load.setdefault((row["target"], row["fresh"], row["connections"]), row)
        elif "command" in row:
            spawn.setdefault(row["command"].split()[0].rsplit("/", 1)[-1], row)
    echo, agent, hyper = (load[name, False, 1] for name in ("echo of 1024 B", "agent", "plain-hyper"))
    thousand, fresh, crowd = load["agent-1000", False, 1], load["agent-1000", True, 1], load["agent-1000", False, 64]
    bare, wrapper, least = (spawn[name] for name in ("true", "keyside-exec", "least-wrapper"))

    def bar(what, floor, figure, ratio, highest):
        verdict = "pass" if ratio <= highest else "FAIL"
        return [what, us(floor), us(figure), f"{ratio:.2f}x", f"<= {highest:.1f}x", verdict]

    def beside(what, figure, ratio):
        return [what, us(figure), f"{ratio:.2f}x"]

    bars = [
        ["what", "floor", "Keyside", "ratio", "bar", "verdict"],
        bar("warm read of one key, p50 (floor: echo of 1 KB)", echo["p50_us"], agent["p50_us"], agent["ratio_p50"], 1.5),
        bar("the same, CPU of the server", echo["server_us"], agent["server_us"], agent["ratio_cpu"], 1.6),
        bar("keyside-exec, one secret (floor: bare true)", bare["p50_us"], wrapper["p50_us"], wrapper["ratio_p50"], 2.0),
    ]
    others = [
        ["beside it", "figure", "ratio to the floor"],
        beside("plain hyper instead of the agent, p50", hyper["p50_us"], hyper["ratio_p50"]),
        beside("the same, CPU of the server", hyper["server_us"], hyper["ratio_cpu"]),
        beside("warm reads of 1,000 secrets in turn, p50", thousand["p50_us"], thousand["ratio_p50"]),
        beside("the same, CPU of the server", thousand["server_us"], thousand["ratio_cpu"]),
        beside("warm read of one key, p99", agent["p99_us"], agent["p99_us"] / echo["p99_us"]),
        beside("warm read on a new connection, p50", fresh["p50_us"], fresh["ratio_p50"]),
        beside("the least wrapper instead of keyside-exec", least["p50_us"], least["ratio_p50"]),
        ["warm reads on 64 connections", f"{crowd['requests_per_second']:,.0f} a second", ""],
    ]
    return bars, others


def us(microseconds):
    return f"{microseconds:,.1f} us" if microseconds < 100 else f"{microseconds:,.0f} us"


def text(table):
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths)))
        for row in table
    )


def markdown(table):
    heading, *rows = table
    rule = ["---", *("---:" for _ in heading[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [heading, rule, *rows])


if __name__ == "__main__":
    main()
