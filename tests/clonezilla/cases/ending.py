"""When may a machine leave, and which words does `ezio` take?"""

import subprocess

from control import Job, is_over, percent_of_all, seconds_of, summary
from ezio_ui import page
from harness import check, wait_until
from machines import installed

COMPLETE = {"state": "seeding", "percent": 100.0, "fetched": 100}


def job(**members):
    return Job.of({"info_hash": "", "torrent": "sda1", "target": "/dev/sda1", **members})


def a_torrent_is_left_by_the_policy_of_ezio(_stage):
    # -w 90, and 15 s since the last upload.
    table = [
        ({"state": "downloading", "fetched": 100, "uploaded": 900}, False),
        ({**COMPLETE, "finished_secs": 90, "idle_secs": None}, False),
        ({**COMPLETE, "finished_secs": 91, "idle_secs": None}, True),
        ({**COMPLETE, "finished_secs": 91, "idle_secs": 15}, False),
        ({**COMPLETE, "finished_secs": 91, "idle_secs": 16}, True),
        ({**COMPLETE, "finished_secs": 0, "idle_secs": 0, "uploaded": 300}, False),
        ({**COMPLETE, "finished_secs": 0, "idle_secs": 0, "uploaded": 301}, True),
        # A seed fetches nothing, so three times that is no limit.
        ({**COMPLETE, "finished_secs": 0, "idle_secs": 0, "fetched": 0, "uploaded": 9}, False),
        ({**COMPLETE, "finished_secs": 91, "idle_secs": 16, "paused": True}, False),
        ({**COMPLETE, "finished_secs": 91, "idle_secs": 16, "state": "done"}, False),
        ({**COMPLETE, "finished_secs": 91, "idle_secs": 16, "state": "failed"}, False),
    ]
    for members, expected in table:
        found = job(**members).may_leave(90, 15)
        check(found == expected, f"{members}: may leave is {found}")


def all_is_over_when_every_torrent_is_left_or_failed(_stage):
    left = job(**COMPLETE, finished_secs=1, paused=True)
    failed = job(state="failed", finished_secs=None, error="I/O error")
    check(not is_over([], []), "nothing was added yet")
    check(is_over([], ["sda1: refused"]), "the only torrent was refused")
    check(is_over([left, failed], [failed.failure()]), "one is left, one failed")
    for other in (job(state="downloading"), job(**COMPLETE, finished_secs=1)):
        check(not is_over([left, failed, other], [failed.failure()]), f"{other} is not over")
    check(not job(state="downloading", paused=True).left, "a torrent that is not complete is left")


def the_lines_are_those_of_ezio_and_fit_a_small_terminal(_stage):
    jobs = [job(state="downloading", percent=50.0, down=89478485, up=1),
            job(**COMPLETE, finished_secs=1, paused=True)]
    line = summary(120.4, jobs)
    check(line == "[T: 120][P:  75%][D: 5.00GB/min][U: 0.00GB/min][R: 1]", line)
    check(percent_of_all([job(state="verifying", percent=99.9)]) == 99, "99.9 % is not 100 %")
    many = [job(state="downloading", target=f"/dev/sda{number}") for number in range(99)]
    for columns, rows in ((80, 25), (40, 10), (10, 2)):
        shown = page(1, many, ["sda1 -> /dev/sda1: " + 99 * "x"], columns, rows)
        check(len(shown) < rows and all(len(line) <= columns for line in shown), f"{shown}")
        check(shown[0] == "NOT DEPLOYED:"[:columns], f"the failure is not first: {shown}")
    check("/dev/sda0" in page(1, many, [], 80, 25)[1], "the target is not shown")


def the_words_of_ezio_are_taken_and_others_are_refused(stage):
    ezio = installed(stage) / "bin/ezio"

    def status_of(*words):
        return subprocess.run([ezio, *words], capture_output=True, text=True, check=False)

    # Clonezilla looks into this text for --cache.
    check("--cache" in status_of("-h").stdout, "-h names no --cache")
    check(status_of("-v").stdout.startswith("ezio "), "-v gives no version")
    everything = ["-F", "--cache-size", "512", "--aio-threads=8", "--slow-start",
                  "--slow-start-period", "9", "-p", "7000", "-k", "1", "-m", "4", "-c=5"]
    # These fetch nothing: Clonezilla sees that ezio does not answer.
    for words in (["-x"], ["--cache-size"], ["-U"], ["-U", "-x", "a", "b"], ["-U", "-T", "a"],
                  ["-t", "x"], ["-t", "1.5.1"], ["-t", ""], everything):
        done = status_of(*words)
        check(done.returncode == 2 and done.stderr.startswith("ezio: "),
              f"{words}: status {done.returncode}, {done.stderr}")
    check(status_of(*everything[:-1], "-h").returncode == 0, "a word of EZIO is not taken")


def a_wrong_word_beside_a_torrent_stays_on_the_error(stage):
    """Clonezilla loses the status of an ezio that fetches, and would report a success."""
    ezio = installed(stage) / "bin/ezio"
    pair = ["-T", "a", "-L", "b"]
    wrong = [["-x", *pair], [*pair, "-t", "x"], ["-t", "", *pair], [*pair, "--cache-size"],
             ["--force=1", *pair], ["-T", "a"], ["-L", "b"], ["a"], [*pair, "-T", "c"],
             [*pair, "-T"], ["-t", "x", "a", "b"]]
    # Here it is only that there is no torrent a.
    right = [[*pair, "-t", "1.5"], [*pair, "-t", "08"]]
    started = [(words, stage.start("ezio", [ezio, *words])) for words in wrong + right]
    for words, process in started:
        wait_until(f"{words} is an error", 10, lambda: "NOT DEPLOYED" in process.output())
        process.expect_running()
        is_mistake = "`ezio --help`" in process.output()
        check(is_mistake == (words in wrong), f"{words}: {process.output()}")
        process.end()
        process.expect(1, 5)


def words_that_are_no_seconds_become_the_default(stage):
    """Neither script ends, and the machine with it, before there was an ezio."""
    for script, words in (("ezio_ui.py", ["-w", "90s", "-l"]), ("ezio_cli.py", ["-w", ""]),
                          ("ezio_cli.py", ["-w", "--notify-ocsmgrd", "-a"])):
        process = stage.start(script, [installed(stage) / "bin" / script, *words])
        wait_until(f"{words} is said", 10, lambda: "15 instead" in process.output())
        process.expect_running()
        process.end()
    check(seconds_of("90") == 90, "90 is a number of seconds")


CASES = [
    a_torrent_is_left_by_the_policy_of_ezio,
    all_is_over_when_every_torrent_is_left_or_failed,
    the_lines_are_those_of_ezio_and_fit_a_small_terminal,
    the_words_of_ezio_are_taken_and_others_are_refused,
    a_wrong_word_beside_a_torrent_stays_on_the_error,
    words_that_are_no_seconds_become_the_default,
]
