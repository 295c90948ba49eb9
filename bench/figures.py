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

    tables = figures(rows)
    if not rest:
        print("\n\n".join(["\n".join(machine), *map(text, tables)]))
        return
    document = rest[1]
    section = "\n".join(["\n".join(f"* {line}" for line in machine), *("\n" + markdown(table) for table in tables)])
    with open(document) as file:
        before, rest = file.read().split(BEGIN)
    after = rest.split(END)[1]
    with open(document, "w") as file:
        file.write(f"{before}{BEGIN}\n{section}\n{END}{after}")
    print(section)


def figures(rows):
    """Three tables, each with its heading first: times with a bar, memory with a bar, and what stands beside them."""

    def pick(label, **fields):
        return next(row for row in rows if row["label"] == label and all(row[key] == value for key, value in fields.items()))

    echo, agent = pick("read", target="echo of 1024 B"), pick("read", target="agent")
    hyper = pick("beside", target="plain-hyper")
    thousand, fresh = (pick("beside", target="agent-1000", fresh=fresh) for fresh in (False, True))
    reads, resolve = pick("resolve", target="agent-1000"), pick("resolve", target="resolve")
    line, many = pick("many", target="plain-line"), pick("many", target="agent-1000")
    (bare, wrapper), (_, least), (first, twenty) = (
        [row for row in rows if row["label"] == label] for label in ("wrapper", "least", "twenty")
    )
    hyper_start, start = pick("start", server="plain-hyper"), pick("start", server="agent")
    hyper_rest, rest, full = pick("rest"), pick("thousand"), pick("hundred-thousand")
    hyper_crowd, crowd = pick("crowd", server="plain-hyper"), pick("crowd", server="agent")
    who = "watchers" if "/watch" in crowd["idle"] else "idle connections"
    count = f"{crowd['count']:,} {who}"
    batch = resolve["ratio_p50"] / 1000

    def at_most(what, floor, figure, ratio, highest):
        return [what, us(floor), us(figure), f"{ratio:.2f}x", f"<= {highest:.2f}x", verdict(ratio <= highest)]

    def memory(what, floor, figure, highest, unit=1e6):
        name, digits = ("MB", 2) if unit == 1e6 else ("KB", 1)
        shown = [f"{value / unit:.{digits}f} {name}" for value in (floor, figure)]
        within = f"<= {highest:g} {name}"
        return [what, *shown, f"{figure / floor:.2f}x", within, verdict(figure <= highest * unit)]

    heading = ["floor", "Keyside", "ratio", "bar", "verdict"]
    times = [
        ["time", *heading],
        at_most("warm read of one key, p50 (floor: echo of 1 KB)", echo["p50_us"], agent["p50_us"], agent["ratio_p50"], 1.5),
        at_most("the same, CPU of the server", echo["server_us"], agent["server_us"], agent["ratio_cpu"], 1.6),
        [
            "warm reads a core and second, 64 connections (floor: a plain line server)",
            *(f"{row['requests_per_core_second']:,.0f}" for row in (line, many)),
            f"{many['ratio_per_core']:.2f}x",
            ">= 0.72x",
            verdict(many["ratio_per_core"] >= 0.72),
        ],
        at_most(
            "1,000 references in one resolve (floor: 1,000 reads)", 1000 * reads["p50_us"], resolve["p50_us"], batch, 0.15
        ),
        at_most(
            f"a reader beside {count}, p50 (floor: alone)",
            crowd["alone_p50_us"],
            crowd["beside_p50_us"],
            crowd["ratio_p50"],
            1.25,
        ),
        at_most("keyside-exec, one secret (floor: bare true)", bare["p50_us"], wrapper["p50_us"], wrapper["ratio_p50"], 2.0),
        at_most("keyside-exec, 20 secrets (floor: one)", first["p50_us"], twenty["p50_us"], twenty["ratio_p50"], 1.1),
        at_most(
            "spawn to the first answer (floor: plain hyper)",
            hyper_start["p50_us"],
            start["p50_us"],
            start["ratio_p50"],
            3.0,
        ),
    ]
    left = crowd["after"] / crowd["before"]
    memories = [
        ["memory", *heading],
        memory("resident at rest (floor: plain hyper)", hyper_rest["before"], rest["before"], 6),
        memory("1,000 secrets of 200 B more (floor: their bytes)", 1000 * 200, rest["after"] - rest["begun"], 0.5),
        memory("100,000 of them (floor: their bytes)", 100_000 * 200, full["after"] - full["begun"], 35),
        memory(
            f"each of {count} (floor: an idle connection of plain hyper)",
            hyper_crowd["bytes_each"],
            crowd["bytes_each"],
            14,
            unit=1e3,
        ),
        [
            "one second after they left (floor: before they came)",
            *(f"{crowd[moment] / 1e6:.2f} MB" for moment in ("before", "after")),
            f"{left:.2f}x",
            "<= 2.00x",
            verdict(left <= 2),
        ],
    ]
    beside = [
        ["beside it", "figure", "ratio to the floor"],
        ["plain hyper instead of the agent, p50", us(hyper["p50_us"]), f"{hyper['ratio_p50']:.2f}x"],
        ["the same, CPU of the server", us(hyper["server_us"]), f"{hyper['ratio_cpu']:.2f}x"],
        ["warm reads of 1,000 secrets in turn, p50", us(thousand["p50_us"]), f"{thousand['ratio_p50']:.2f}x"],
        ["the same, CPU of the server", us(thousand["server_us"]), f"{thousand['ratio_cpu']:.2f}x"],
        ["warm read of one key, p99", us(agent["p99_us"]), f"{agent['p99_us'] / echo['p99_us']:.2f}x"],
        ["warm read on a new connection, p50", us(fresh["p50_us"]), f"{fresh['ratio_p50']:.2f}x"],
        ["the least wrapper instead of keyside-exec", us(least["p50_us"]), f"{least['ratio_p50']:.2f}x"],
        [f"reads a second beside {count}", "", f"{crowd['ratio_throughput']:.2f}x"],
        *(
            [f"{what}, and the pages of the program that the first read brings in", f"{(row['after'] - row['before']) / 1e6:.2f} MB", ""]
            for what, row in (("1,000 secrets of 200 B", rest), ("100,000 of them", full))
        ),
        ["memory at rest without what is mapped from files", f"{rest['before_anonymous'] / 1e6:.2f} MB", ""],
        [
            "plain hyper, one second after its crowd left",
            f"{hyper_crowd['after'] / 1e6:.2f} MB",
            f"{hyper_crowd['after'] / hyper_crowd['before']:.2f}x",
        ],
    ]
    return times, memories, beside


def verdict(passed):
    return "pass" if passed else "FAIL"


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
