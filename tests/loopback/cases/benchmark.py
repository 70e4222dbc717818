"""Does scripts/bench/run measure a small swarm correctly?"""

import json

from harness import AGENT, MIB, TOP, check


def the_bench_measures_a_small_swarm(stage):
    """Two machines behind links of 50 Mbit/s: the right bytes, no faster than the links, and all
    figures stored."""
    output = stage.path("bench")
    bench = stage.start("bench", [
        TOP / "scripts/bench/run", "swarm", "--n", "2", "--only", "swarmdd", "--size", "8",
        "--piece-size", "32", "--rate", "50", "--trace", "--binary", AGENT, "--output", output])
    bench.expect(0, 60)
    report = json.loads((output / "swarm.json").read_text())
    [run], [row] = report["runs"], report["summary"]
    check(report["failures"] == [] and report["left_out"] == [], f"the report is {report}")
    completed = run["completed_seconds"]
    check(len(completed) == 2 and None not in completed, f"the run is {run}")
    stream_share = report["stream_bytes_per_second"][0] * 8 / 50e6
    check(0.85 < stream_share <= 1, f"one TCP stream gets {stream_share:.2f} of the link")
    check(0.95 < row["ratio"] < 10, f"{row['ratio']} times the limit")
    check(run["seeder_sent_bytes"] >= 8 * MIB, f"the seeder sent {run['seeder_sent_bytes']}")
    check(all(run["cpu_seconds"].values()) and all(run["peak_rss_bytes"].values()),
          f"the run is {run}")
    check(run["threads"] == 1, f"{run['threads']} threads")
    check("| swarmdd" in (output / "swarm.md").read_text(), "no table")
    [trace] = output.glob("trace-swarmdd-2-*-1.svg")
    check("<polygon" in trace.read_text(), "no curves")
    check(not list((output / "swarm").glob("machine-*")), "targets are left over")


CASES = [the_bench_measures_a_small_swarm]
