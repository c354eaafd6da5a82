//! One agent: its flows, its processes, its alerts.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};

use super::{ONE_LIST, Theme, alerts, line, part, said, text, titled, to_the_right};
use crate::commands::top::app::{App, Focus, Opened};
use crate::commands::top::columns::{bytes_per_second, per_second};
use crate::commands::top::look::{Flow, MOST, Process};

/// Columns of a flow beside its other end: protocol, state, bytes out and in.
const FLOW: [u16; 4] = [10, 12, 8, 8];
/// Columns of a process beside its command: ids of it and its user.
const PROCESS: [u16; 2] = [8, 6];
/// Least columns of what stands between.
const TEXT: u16 = 20;

/// Draws it: a line about it, and its three lists, or the one with the keyboard.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, theme: Theme) {
    let Some(opened) = &app.opened else {
        return;
    };
    let parts = [Constraint::Length(2), Constraint::Min(0)];
    let [about, lists] = Layout::vertical(parts).areas(area);
    let lines = in_words(opened, theme);
    let lines = lines.into_iter().map(|parts| line(parts, area.width));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), about);
    if lists.height < ONE_LIST {
        match app.focus {
            Focus::First => flows(frame, lists, app, theme),
            Focus::Processes => processes(frame, lists, app, theme),
            Focus::Alerts => alerts::draw(frame, lists, app, theme),
        }
        return;
    }
    // What there is, at most a third; flows have the rest. Above a list is a line with its
    // name, above processes one with headings, too.
    let third = lists.height / 3;
    let listed = opened.has.as_ref().map_or(0, |has| has.processes.len());
    let height = |lines: usize| u16::try_from(lines).unwrap_or(u16::MAX).min(third);
    let processes_height = height(listed + 2);
    let alerts_height = height(app.shown_alerts().len() + 1);
    let parts = [
        Constraint::Min(0),
        Constraint::Length(processes_height),
        Constraint::Length(alerts_height),
    ];
    let [first, second, third] = Layout::vertical(parts).areas(lists);
    flows(frame, first, app, theme);
    processes(frame, second, app, theme);
    alerts::draw(frame, third, app, theme);
}

fn in_words(opened: &Opened, theme: Theme) -> [Vec<Span<'static>>; 2] {
    let row = &opened.row;
    let (state, style) = match (opened.gone, row.covered) {
        (true, _) => ("gone".to_owned(), theme.warning()),
        (false, true) => (format!("{}, covered", said(&row.state)), theme.good()),
        (false, false) => (
            format!("{}, network not covered", said(&row.state)),
            theme.warning(),
        ),
    };
    let about = vec![
        part(theme.strong(), said(&row.name)),
        part(theme.plain(), "  "),
        part(style, state),
        part(theme.quiet(), format!("  {}", said(&row.cgroup))),
    ];
    let mut numbers = vec![part(
        theme.plain(),
        format!(
            "{} connects/s  {}/s out  {}/s in",
            per_second(row.connects),
            bytes_per_second(row.bytes_out),
            bytes_per_second(row.bytes_in),
        ),
    )];
    if row.lost > 0 {
        let lost = text::count(row.lost, "record");
        numbers.push(part(theme.bad(), format!("  {lost} lost")));
    }
    if row.holes > 0 {
        let holes = format!("  unseen things possible, see gap events: {}", row.holes);
        numbers.push(part(theme.warning(), holes));
    }
    [about, numbers]
}

fn flows(frame: &mut Frame<'_>, area: Rect, app: &mut App, theme: Theme) {
    let Some(opened) = &app.opened else {
        return;
    };
    let has_keyboard = app.focus == Focus::First;
    let listed = opened.has.as_ref().map(|has| has.flows.as_slice());
    let title = titled(
        counted("Flows", listed.map(<[Flow]>::len), opened.row.flows),
        has_keyboard,
        theme,
    );
    let (other, widths) = beside(&FLOW, area.width);
    let head = ["REMOTE", "PROTOCOL", "STATE", "OUT", "IN"];
    let rows = listed.unwrap_or_default().iter().map(|flow| {
        let [protocol, state, out, into] = FLOW;
        let own = [
            (
                text::column(&said(protocol_of(flow)), protocol.into()),
                theme.plain(),
            ),
            (
                text::column(&said(&flow.result), state.into()),
                theme.quiet(),
            ),
            (
                to_the_right(&text::bytes(flow.bytes_out), out),
                theme.plain(),
            ),
            (
                to_the_right(&text::bytes(flow.bytes_in), into),
                theme.plain(),
            ),
        ];
        let first = text::column(&said(&remote(flow)), other.into());
        cells((first, theme.plain()), own, widths.len())
    });
    let rows: Vec<Row<'_>> = rows.collect();
    let head = head
        .iter()
        .enumerate()
        .take(widths.len())
        .map(|(place, name)| match place {
            3.. => to_the_right(name, FLOW[place - 1]),
            _ => (*name).to_owned(),
        });
    let head = Row::new(head.collect::<Vec<_>>()).style(theme.head());
    let mut table = Table::new(rows, widths).header(head).block(title);
    if has_keyboard {
        table = table.row_highlight_style(theme.chosen());
    }
    frame.render_stateful_widget(table, area, &mut app.flows_at);
}

fn processes(frame: &mut Frame<'_>, area: Rect, app: &mut App, theme: Theme) {
    let Some(opened) = &app.opened else {
        return;
    };
    let has_keyboard = app.focus == Focus::Processes;
    let listed = opened.has.as_ref().map(|has| has.processes.as_slice());
    let title = titled(
        counted(
            "Processes",
            listed.map(<[Process]>::len),
            opened.row.processes,
        ),
        has_keyboard,
        theme,
    );
    let [pid, uid] = PROCESS;
    let room = area.width.saturating_sub(pid + uid + 2);
    let rows = listed.unwrap_or_default().iter().map(|process| {
        let user = process.uid.map(|uid| uid.to_string()).unwrap_or_default();
        Row::new([
            Line::from(to_the_right(&process.pid.to_string(), pid)),
            Line::from(to_the_right(&user, uid)),
            line(vec![part(theme.plain(), said(&command(process)))], room),
        ])
    });
    let widths = [
        Constraint::Length(pid),
        Constraint::Length(uid),
        Constraint::Min(0),
    ];
    let rows: Vec<Row<'_>> = rows.collect();
    let head = [
        to_the_right("PID", pid),
        to_the_right("UID", uid),
        "COMMAND".to_owned(),
    ];
    let mut table = Table::new(rows, widths)
        .header(Row::new(head).style(theme.head()))
        .block(title);
    if has_keyboard {
        table = table.row_highlight_style(theme.chosen());
    }
    frame.render_stateful_widget(table, area, &mut app.processes_at);
}

/// A list's name, and how many of how many are in it.
fn counted(name: &str, listed: Option<usize>, all: u64) -> String {
    match listed {
        None => format!("{name} …"),
        // Fewer were asked for; else the two numbers are of different moments.
        Some(listed) if listed >= MOST && (listed as u64) < all => {
            format!("{name} {listed} of {}", text::number(all))
        }
        Some(listed) => format!("{name} {listed}"),
    }
}

/// The width of a text beside columns of their own, and which of these there is room for.
fn beside(columns: &[u16], width: u16) -> (u16, Vec<Constraint>) {
    let mut columns = columns.to_vec();
    let room = |columns: &[u16]| {
        let taken = columns.iter().map(|column| column + 1).sum::<u16>();
        width.saturating_sub(taken)
    };
    while room(&columns) < TEXT && columns.pop().is_some() {}
    let text = room(&columns);
    let widths = [text].into_iter().chain(columns);
    (text, widths.map(Constraint::Length).collect())
}

fn cells<const N: usize>(
    first: (String, Style),
    others: [(String, Style); N],
    shown: usize,
) -> Row<'static> {
    let all = [first].into_iter().chain(others).take(shown);
    Row::new(all.map(|(text, style)| Line::from(Span::styled(text, style))))
}

fn protocol_of(flow: &Flow) -> &str {
    match flow.protocol.is_empty() {
        true => &flow.transport,
        false => &flow.protocol,
    }
}

/// `→ git.example (203.0.113.9:443)`.
fn remote(flow: &Flow) -> String {
    let arrow = if flow.direction == "inbound" {
        "←"
    } else {
        "→"
    };
    let ip = &flow.remote.ip;
    let address = match ip.contains(':') {
        true => format!("[{ip}]:{}", flow.remote.port),
        false => format!("{ip}:{}", flow.remote.port),
    };
    match flow.server_name.is_empty() {
        true => format!("{arrow} {address}"),
        false => format!("{arrow} {} ({address})", flow.server_name),
    }
}

/// A process's command line, or its name in brackets where that is not known.
pub fn command(process: &Process) -> String {
    match process.argv.is_empty() {
        true => format!("[{}]", process.comm),
        false => text::command_line(process.argv.iter().map(String::as_str)),
    }
}
