//! How does a line with a bar fit into the columns of a terminal?

use super::lines::{View, printable};

/// The longest bar. A narrow terminal gets a shorter one, or none below `BAR_COLUMNS_MIN`.
const BAR_COLUMNS_MAX: usize = 40;
const BAR_COLUMNS_MIN: usize = 8;

/// As `View::line`, with a bar in the columns that are left. The last column stays free, because
/// some terminals wrap when it is written.
pub(super) fn draw(view: &View, columns: usize) -> String {
    let room = columns.saturating_sub(1);
    let before = printable(&format!("{} {}", view.title, view.state));
    let after = format!("{}{}", view.percent(), view.numbers());
    let used = before.chars().count() + after.chars().count() + " []".len();
    let bar = room.saturating_sub(used).min(BAR_COLUMNS_MAX);
    let line = match view.permille {
        Some(permille) if bar >= BAR_COLUMNS_MIN => {
            let full = bar * permille as usize / 1000;
            format!(
                "{before} [{}{}]{after}",
                "#".repeat(full),
                "-".repeat(bar - full)
            )
        }
        _ => format!("{before}{after}"),
    };
    line.chars().take(room).collect()
}

#[cfg(test)]
mod tests {
    use super::super::progress::Progress;
    use super::super::testing::{at, status};
    use super::super::{State, Status};
    use super::*;

    #[test]
    fn a_line_with_a_bar_fits_every_width() {
        let mut job = Progress::new(at(0), &status(State::Downloading));
        job.record(
            at(1000),
            &Status {
                have: 500,
                fetched: 7 << 20,
                ..status(State::Downloading)
            },
        );
        for columns in 0..200 {
            let line = draw(&View::of_one(&job), columns);
            assert!(
                line.chars().count() <= columns.saturating_sub(1),
                "{columns}: {line}"
            );
        }
        assert!(
            draw(&View::of_one(&job), 150)
                .contains("[####################--------------------] 50.0 %")
        );
        assert!(!draw(&View::of_one(&job), 70).contains('['));
    }
}
