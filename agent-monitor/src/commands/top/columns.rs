//! The columns of the table of agents: what they are called, what they show, how they sort.

use std::cmp::Ordering;

use super::rates::Row;
use super::text;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Agent,
    Processes,
    Flows,
    Connects,
    Out,
    In,
    Alerts,
    Lost,
}

/// All of them, from the left.
pub const COLUMNS: [Column; 8] = [
    Column::Agent,
    Column::Processes,
    Column::Flows,
    Column::Connects,
    Column::Out,
    Column::In,
    Column::Alerts,
    Column::Lost,
];

/// What goes first where there is no room.
const DISPENSABLE: [Column; 6] = [
    Column::Processes,
    Column::Connects,
    Column::In,
    Column::Out,
    Column::Flows,
    Column::Lost,
];

/// Least columns of an agent's name.
const NAME: u16 = 16;
/// The same where even that is not there.
const SHORT_NAME: u16 = 8;

impl Column {
    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Agent => "AGENT",
            Self::Processes => "PROCS",
            Self::Flows => "FLOWS",
            Self::Connects => "CONN/s",
            Self::Out => "OUT/s",
            Self::In => "IN/s",
            Self::Alerts => "ALERTS",
            Self::Lost => "LOST",
        }
    }

    /// Columns of a terminal that it takes; an agent's name takes what is left.
    pub fn width(self) -> u16 {
        match self {
            Self::Agent => NAME,
            Self::Processes | Self::Flows => 6,
            Self::Connects => 7,
            Self::Out | Self::In => 8,
            Self::Alerts => 15,
            Self::Lost => 7,
        }
    }

    /// Whether numbers stand in it, to the right.
    pub fn is_number(self) -> bool {
        !matches!(self, Self::Agent | Self::Alerts)
    }

    /// What it shows of an agent, as it is: to be escaped.
    pub fn text(self, row: &Row) -> String {
        match self {
            Self::Agent => row.name.clone(),
            Self::Processes => text::number(row.processes),
            Self::Flows => text::number(row.flows),
            Self::Connects => per_second(row.connects),
            Self::Out => bytes_per_second(row.bytes_out),
            Self::In => bytes_per_second(row.bytes_in),
            Self::Alerts => alerts(row),
            Self::Lost => text::number(row.lost),
        }
    }

    /// The order of two agents: what matters more comes first. Names decide the rest, and
    /// then ids, so that rows keep their places.
    pub fn order(self, one: &Row, other: &Row) -> Ordering {
        let rate = |one: Option<f64>, other: Option<f64>| {
            let value = |rate: Option<f64>| rate.unwrap_or(-1.0);
            value(other).total_cmp(&value(one))
        };
        let order = match self {
            Self::Agent => Ordering::Equal,
            Self::Processes => other.processes.cmp(&one.processes),
            Self::Flows => other.flows.cmp(&one.flows),
            Self::Connects => rate(one.connects, other.connects),
            Self::Out => rate(one.bytes_out, other.bytes_out),
            Self::In => rate(one.bytes_in, other.bytes_in),
            Self::Alerts => {
                // The worst decide, then the next worst.
                let by = |row: &Row| row.alerts.clone().into_iter().rev().collect::<Vec<_>>();
                by(other).cmp(&by(one))
            }
            Self::Lost => other.lost.cmp(&one.lost),
        };
        let names = || (&one.name, &one.id).cmp(&(&other.name, &other.id));
        order.then_with(names)
    }

    /// The next one to sort by, or the one before.
    pub fn next(self, back: bool) -> Self {
        let place = COLUMNS.iter().position(|it| *it == self);
        let step = if back { COLUMNS.len() - 1 } else { 1 };
        COLUMNS[(place.unwrap_or_default() + step) % COLUMNS.len()]
    }
}

/// Those for which there is room in so many columns, with a space between, each with its width.
pub fn fitting(width: u16) -> Vec<(Column, u16)> {
    let mut shown = COLUMNS.to_vec();
    let mut leaving = DISPENSABLE.iter();
    let taken = |shown: &[Column], name: u16| {
        let own = shown.iter().map(|it| match it {
            Column::Agent => name,
            other => other.width(),
        });
        own.sum::<u16>() + shown.len().saturating_sub(1) as u16
    };
    while taken(&shown, NAME) > width
        && let Some(next) = leaving.next()
    {
        shown.retain(|column| column != next);
    }
    if taken(&shown, SHORT_NAME) > width {
        shown.truncate(1);
    }
    let name = width.saturating_sub(taken(&shown, 0));
    let widths = shown.into_iter().map(|column| match column {
        Column::Agent => (column, name),
        other => (other, other.width()),
    });
    widths.collect()
}

/// `2 critical +3`: the worst, and how many others.
fn alerts(row: &Row) -> String {
    let Some((severity, count)) = row.worst() else {
        return "-".to_owned();
    };
    let others = row.alerts.values().sum::<u64>() - count;
    let more = match others {
        0 => String::new(),
        others => format!(" +{others}"),
    };
    format!("{count} {}{more}", severity.name())
}

/// A rate: `-`, `0`, `0.4`, `12`, `1,234`.
pub fn per_second(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate > 0.0 && rate < 9.95 => format!("{:.1}", rate.max(0.1)),
        Some(rate) => text::number(rate.round() as u64),
    }
}

/// A rate of bytes: `-`, `17 B`, `1.2 MB`.
pub fn bytes_per_second(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| text::bytes(rate.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Severity;

    #[test]
    fn columns_leave_one_after_another_where_there_is_no_room() {
        let mut before = COLUMNS.len();
        for width in (0..=120).rev() {
            let columns = fitting(width);
            assert!(columns.len() <= before, "{width}");
            before = columns.len();
            assert_eq!(columns[0].0, Column::Agent, "{width}");
            let spaces = columns.len() as u16 - 1;
            let taken = columns.iter().map(|(_, width)| width).sum::<u16>() + spaces;
            assert_eq!(taken, width);
        }
        assert_eq!(fitting(80).len(), COLUMNS.len());
        assert_eq!(before, 1);
    }

    #[test]
    fn the_worst_alerts_come_first_then_the_next_worst_then_the_name() {
        let row = |name: &str, alerts: &[(Severity, u64)]| Row {
            name: name.into(),
            alerts: alerts.iter().copied().collect(),
            ..Row::default()
        };
        let mut rows = [
            row("none", &[]),
            row("b", &[(Severity::High, 9)]),
            row("d", &[(Severity::Critical, 1), (Severity::Low, 1)]),
            row("c", &[(Severity::Critical, 1), (Severity::High, 1)]),
            row("a", &[(Severity::High, 9)]),
        ];
        rows.sort_by(|one, other| Column::Alerts.order(one, other));
        assert_eq!(
            rows.each_ref().map(|row| &*row.name),
            ["c", "d", "a", "b", "none"]
        );
        assert_eq!(Column::Alerts.text(&rows[0]), "1 critical +1");
        assert_eq!(Column::Alerts.text(&rows[2]), "9 high");
        assert_eq!(Column::Alerts.text(&rows[4]), "-");
    }

    #[test]
    fn what_is_not_known_sorts_last_and_shows_as_a_dash() {
        let row = |name: &str, connects| Row {
            name: name.into(),
            connects,
            ..Row::default()
        };
        let mut rows = [row("a", None), row("b", Some(0.0)), row("c", Some(7.5))];
        rows.sort_by(|one, other| Column::Connects.order(one, other));
        let shown = rows.each_ref().map(|row| Column::Connects.text(row));
        assert_eq!(shown, ["7.5", "0", "-"]);
    }

    #[test]
    fn sorting_goes_through_all_columns_either_way() {
        let mut column = Column::Agent;
        for expected in COLUMNS.iter().cycle().skip(1).take(COLUMNS.len()) {
            let next = column.next(false);
            assert_eq!((next, next.next(true)), (*expected, column));
            column = next;
        }
    }

    #[test]
    fn rates_are_short() {
        for (rate, shown) in [
            (0.0, "0"),
            (0.01, "0.1"),
            (0.4, "0.4"),
            (9.96, "10"),
            (1_234.4, "1,234"),
        ] {
            assert_eq!(per_second(Some(rate)), shown);
        }
        assert_eq!(bytes_per_second(Some(1_234.4)), "1.2 kB");
    }
}
